import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Normal
from pyro.infer import Predictive, Trace_ELBO
from torch import nn

from pyro_latents.distributions.flow import FlowDistribution
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.guides.families import Flow, MeanField, PointMass
from pyro_latents.guides.triplet_tvae import SeveralViewsGuide, TripletGuide
from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.models.triplet_tvae import Additive, Matrix, SeveralViewsTVAE, TripletTVAE
from pyro_latents.models.vae import VAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.programs import local_parameters

Z, SHAPE = 3, (1, 4, 4)


def decoder():
    return DenseDecoder(Z, SHAPE, [8])


def build(transformation=Additive, views=2, tied=True, **families):
    r = transformation(Z)
    encoder = DenseEncoder(SHAPE, [8])
    options = {"hidden_dims": (8, 8), **families}
    if tied:
        model = TripletTVAE(decoder(), Z, r)
        return model, TripletGuide(encoder, Z, r.parameter_dim, **options)
    model = SeveralViewsTVAE(decoder(), Z, r, num_views=views)
    return model, SeveralViewsGuide(encoder, Z, r.parameter_dim, num_views=views, **options)


PAIRS = {
    "paper": {},
    "gaussian T": {"T_family": MeanField},
    "flow z": {"z_family": Flow},
    "matrix": {"transformation": Matrix, "T_family": MeanField},
    "three views": {"tied": False, "views": 3},
    "one view, matrix": {"tied": False, "views": 1, "transformation": Matrix},
}
EVERY_PAIR = pytest.mark.parametrize("pair", PAIRS)


def batch(model, size=5):
    return tuple(torch.rand(model.num_views + 1, size, *SHAPE))


def weights(model):
    names = ["T"] if type(model) is TripletTVAE else [f"T{i + 1}" for i in range(model.num_views)]
    codes = ["z", *(f"z{i + 1}" for i in range(model.num_views))]
    return {**dict.fromkeys(codes, 1.0), **dict.fromkeys(names, 0.5)}


def latents(trace):
    return {
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and name != "data"
    }


@EVERY_PAIR
@pytest.mark.parametrize("particles", [1, 4])
def test_the_guide_has_the_sites_and_shapes_of_the_model(pair, particles):
    model, guide = build(**PAIRS[pair])
    plate = pyro.plate("particles", particles, dim=-2)
    with local_parameters(model, guide):
        guide_trace = poutine.trace(plate(guide)).get_trace(*batch(model))
        model_trace = poutine.trace(plate(model)).get_trace(*batch(model))
    assert latents(model_trace) == latents(guide_trace)
    for name in latents(model_trace):
        assert model_trace.nodes[name]["value"].shape == guide_trace.nodes[name]["value"].shape


@EVERY_PAIR
@pytest.mark.parametrize("particles", [1, 3])
def test_every_parameter_gets_a_gradient(pair, particles):
    model, guide = build(**PAIRS[pair])
    loss = TraceMMD_ELBO(
        weights(model), copies={"z0": "z"}, num_particles=particles, vectorize_particles=True
    )
    with local_parameters(model, guide):
        loss(model, guide)(*batch(model)).backward()
    for module in (model, guide):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@EVERY_PAIR
def test_the_loss_falls(pair):
    model, guide = build(**PAIRS[pair])
    loss = TraceMMD_ELBO(weights(model), copies={"z0": "z"})
    data = tuple((image > 0.5).float().expand(20, *SHAPE) for image in batch(model, 1))
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=1e-2)
    losses = []
    with local_parameters(model, guide):
        for _ in range(30):
            optimizer.zero_grad()
            losses.append(loss(model, guide)(*data))
            losses[-1].backward()
            optimizer.step()
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@EVERY_PAIR
def test_prior_and_posterior_predictive_draws(pair):
    model, guide = build(**PAIRS[pair])
    data = batch(model)
    with local_parameters(model, guide):
        prior = Predictive(model, num_samples=2, parallel=True)(size=7)
        new = Predictive(poutine.uncondition(model), guide=guide, num_samples=2, parallel=True)
        posterior = new(*data)
    for i in range(1, model.num_views + 1):
        assert prior[f"x{i}"].shape == (2, 7, *SHAPE)
    assert posterior["x"].shape == (2, 5, *SHAPE)
    assert not torch.equal(posterior["x"][0], data[0])


@EVERY_PAIR
def test_a_saved_guide_gives_the_same_loss(pair):
    model, guide = build(**PAIRS[pair])
    other_model, other_guide = build(**PAIRS[pair])
    other_model.load_state_dict(model.state_dict())
    other_guide.load_state_dict(guide.state_dict())
    loss, data, values = TraceMMD_ELBO(weights(model)), batch(model), []
    for m, g in ((model, guide), (other_model, other_guide)):
        torch.manual_seed(0)
        with local_parameters(m, g):
            values.append(loss(m, g)(*data))
    assert torch.equal(*values)


def test_the_image_model_is_the_vae_with_the_same_decoder():
    model, _ = build()
    image_model = model.image_model()
    assert type(image_model) is VAE
    assert image_model.decoder is model.decoder
    assert image_model.likelihood is model.likelihood


def test_one_image_of_a_triplet_has_the_likelihood_of_the_image_model():
    # With a linear normal decoder p(x) is known: x1 ~ N(b, W (I + T-part + r-part) W' + s^2).
    model = TripletTVAE(nn.Identity(), Z, Additive(Z), likelihood=WideNormal())
    with local_parameters(model):
        draws = Predictive(model, num_samples=40_000, parallel=True)()
        alone = Predictive(model.image_model(), num_samples=40_000, parallel=True)()
    x, x1, image = (d.reshape(-1, Z) for d in (draws["x"], draws["x1"], alone["x"]))
    torch.testing.assert_close(x.var(0), torch.full((Z,), 1.26), atol=0.04, rtol=0)
    torch.testing.assert_close(image.var(0), torch.full((Z,), 1.25), atol=0.04, rtol=0)
    torch.testing.assert_close(x1.var(0), torch.full((Z,), 2.26), atol=0.07, rtol=0)


class WideNormal(nn.Module):
    def forward(self, loc):
        return Normal(loc, 0.5).to_event(1)


def test_the_image_guide_shares_the_networks():
    model, guide = build()
    image_model, image_guide = model.image_model(), guide.image_guide()
    assert image_guide.encoder is guide.encoder
    x = torch.rand(4, *SHAPE)
    posterior = image_guide.posterior(x)["z"]
    torch.testing.assert_close(posterior.mean, guide.posterior(x, x, x)["z0"].mean)
    assert log_evidence(image_model, image_guide, x, num_particles=30).log_evidence.shape == (4,)


def test_the_two_views_are_moved_in_opposite_directions():
    model = TripletTVAE(decoder(), Z, Additive(Z), transition_scale=0)
    with local_parameters(model):
        trace = poutine.trace(model).get_trace(size=6)
    z, T, z0, z1, z2 = (trace.nodes[name]["value"] for name in ("z", "T", "z0", "z1", "z2"))
    torch.testing.assert_close(z0, z)
    torch.testing.assert_close(z1, z + T)
    torch.testing.assert_close(z2, z - T)


def test_the_model_is_equation_1():
    model, _ = build()
    with local_parameters(model):
        trace = poutine.trace(model).get_trace(*batch(model))
    sites = poutine.util.prune_subsample_sites(trace)
    assert sites.observation_nodes == ["x", "x1", "x2"]
    assert sites.stochastic_nodes == ["z", "T", "z0", "z1", "z2"]


@EVERY_PAIR
def test_the_indirect_term_is_the_likelihood_at_z(pair):
    model, guide = build(**PAIRS[pair])
    data = batch(model)
    loss = TraceMMD_ELBO(weights(model), copies={"z0": "z"}, max_plate_nesting=1)
    with local_parameters(model, guide):
        torch.manual_seed(1)
        drawn = poutine.trace(guide).get_trace(*data).nodes
        torch.manual_seed(1)
        terms = loss.terms(model, guide, *data)
        expected = -model.render(drawn["z"]["value"]).log_prob(data[0]).sum()
    torch.testing.assert_close(terms["x_indirect"], expected)
    assert {name for name in terms if name.startswith(("mmd", "kl"))} == {
        "kl_z0",
        *(f"mmd_{name}" for name in weights(model)),
    }


def test_the_kl_of_z0_is_that_of_the_vae():
    model, guide = build()
    data = batch(model)
    with local_parameters(model, guide):
        terms = TraceMMD_ELBO(weights(model), copies={"z0": "z"}).terms(model, guide, *data)
        vae = TraceMMD_ELBO({}).terms(model.image_model(), guide.image_guide(), data[0])
    torch.testing.assert_close(terms["kl_z0"], vae["kl_z"])


@EVERY_PAIR
def test_the_posterior_is_that_of_the_draws(pair):
    model, guide = build(**PAIRS[pair])
    data = batch(model)
    found = guide.posterior(*data)
    with local_parameters(model, guide):
        trace = poutine.trace(guide).get_trace(*data)
    assert list(found) == [name for name in trace.nodes if name in latents(trace)]
    # The views depend on nothing that is drawn, and all else on their codes.
    for name in ("z0", "z1"):
        torch.testing.assert_close(found[name].mean, trace.nodes[name]["fn"].mean)
    centres = [found[f"z{i}"].mean for i in range(1, model.num_views + 1)]
    if pair == "paper":
        expected = guide.transformation_posterior(*centres).mean
        torch.testing.assert_close(found["T"].mean, expected)


def test_every_site_has_a_density_for_an_ordinary_elbo():
    model, guide = build(T_family=MeanField)
    with local_parameters(model, guide):
        assert torch.isfinite(torch.tensor(Trace_ELBO().loss(model, guide, *batch(model))))


def test_families_are_those_asked_for():
    _, guide = build(z_family=Flow, T_family=PointMass)
    codes = torch.randn(2, 5, Z)
    assert isinstance(guide.code_posterior(*codes), FlowDistribution)
    T = guide.transformation_posterior(*codes)
    assert torch.equal(T.rsample(), T.rsample())


MISTAKES = {
    "views": (lambda: build()[0](*torch.rand(2, 3, *SHAPE)), "has 2 views of an image; got 1"),
    "shape": (
        lambda: build()[0](torch.rand(3, *SHAPE), torch.rand(3, *SHAPE), torch.rand(2, *SHAPE)),
        "views of the shape of x, .3, 1, 4, 4.; got x2 .2, 1, 4, 4.",
    ),
    "guide": (lambda: build()[1](torch.rand(3, *SHAPE)), "infers from 2 views; got 0"),
    "size": (lambda: TripletTVAE(decoder(), Z, Additive(Z + 1)), "codes of size 4"),
    "scale": (
        lambda: TripletTVAE(decoder(), Z, Additive(Z), transition_scale=-1),
        "transition_scale must not be negative",
    ),
    "none": (lambda: SeveralViewsTVAE(decoder(), Z, Additive(Z), num_views=0), "a view at least"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    call, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        call()
