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
from pyro_latents.latent_transformations import Additive, Matrix
from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.models.triplet_tvae import SeveralViewsTVAE, TripletTVAE
from pyro_latents.models.vae import VAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.parameters import local_parameters

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
        weights(model), prior_of={"z0": "z"}, num_particles=particles, vectorize_particles=True
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
    loss = TraceMMD_ELBO(weights(model), prior_of={"z0": "z"})
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


def test_without_transformations_it_is_the_vae():
    shared, x = decoder(), torch.rand(5, *SHAPE)
    tvae, vae = TripletTVAE(shared, Z, None), VAE(shared, Z)
    traces = []
    for model in (tvae, vae):
        torch.manual_seed(0)
        with local_parameters(model):
            traces.append(poutine.trace(model).get_trace(x))
    assert list(traces[0].nodes) == list(traces[1].nodes)
    assert traces[0].log_prob_sum() == traces[1].log_prob_sum()


def test_without_transformations_it_trains_as_the_vae():
    x = torch.rand(5, *SHAPE)
    _, guide = build()
    shared, losses = decoder(), []
    for model in (TripletTVAE(shared, Z, None), VAE(shared, Z)):
        torch.manual_seed(0)
        with local_parameters(model, guide):
            losses.append(TraceMMD_ELBO({})(model, guide.image_guide())(x))
    assert losses[0] == losses[1]


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


def test_the_image_model_and_guide_share_the_networks():
    model, guide = build()
    image_model, image_guide = model.image_model(), guide.image_guide()
    assert image_model.decoder is model.decoder
    assert image_guide.encoder is guide.encoder
    x = torch.rand(4, *SHAPE)
    posterior = image_guide.posterior(x)["z"]
    torch.testing.assert_close(posterior.mean, guide.posterior(x).mean)
    assert log_evidence(image_model, image_guide, x, num_particles=30).log_evidence.shape == (4,)


def test_the_two_views_are_moved_in_opposite_directions():
    model = TripletTVAE(decoder(), Z, Additive(Z), transition_scale=0)
    with local_parameters(model):
        trace = poutine.trace(model).get_trace(size=6)
    z, T, z0, z1, z2 = (trace.nodes[name]["value"] for name in ("z", "T", "z0", "z1", "z2"))
    torch.testing.assert_close(z0, z)
    torch.testing.assert_close(z1, z + T)
    torch.testing.assert_close(z2, z - T)


def test_the_indirect_term_is_the_likelihood_of_the_image_under_z():
    model, guide = build()
    data = batch(model)
    loss = TraceMMD_ELBO(weights(model), prior_of={"z0": "z"})
    with local_parameters(model, guide):
        guide_trace = poutine.trace(guide).get_trace(*data)
        replayed = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*data)
        expected = model.render(guide_trace.nodes["z"]["value"]).log_prob(data[0])
        terms = loss.terms(model, guide, *data)
    torch.testing.assert_close(replayed.nodes["x_indirect"]["fn"].log_prob(data[0]), expected)
    assert set(terms) == {
        *("x", "x1", "x2", "x_indirect", "kl_z0", "mmd_z", "mmd_z1", "mmd_z2", "mmd_T")
    }


def test_the_kl_of_z0_is_that_of_the_vae():
    model, guide = build()
    data = batch(model)
    with local_parameters(model, guide):
        terms = TraceMMD_ELBO(weights(model), prior_of={"z0": "z"}).terms(model, guide, *data)
        vae = TraceMMD_ELBO({}).terms(model.image_model(), guide.image_guide(), data[0])
    torch.testing.assert_close(terms["kl_z0"], vae["kl_z"])


def test_a_view_can_be_rendered_from_the_moved_code_too():
    model, guide = build()
    model.indirect_views = True
    data = batch(model)
    with local_parameters(model, guide):
        guide_trace = poutine.trace(guide).get_trace(*data)
        trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*data)
    z, T = (guide_trace.nodes[name]["value"] for name in ("z", "T"))
    for name, code, view in (("x1", z + T, data[1]), ("x2", z - T, data[2])):
        site = trace.nodes[f"{name}_indirect"]
        torch.testing.assert_close(
            site["fn"].log_prob(view), model.render(code).log_prob(site["value"])
        )
        torch.testing.assert_close(site["value"], view)


def test_without_the_indirect_term_the_model_is_equation_1():
    model = TripletTVAE(decoder(), Z, Additive(Z), indirect=False)
    with local_parameters(model):
        trace = poutine.trace(model).get_trace(*batch(model))
    assert "x_indirect" not in trace.nodes


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
