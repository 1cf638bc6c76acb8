import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO

from pyro_latents.distributions.pose_priors import FittedNormal
from pyro_latents.guides.families import FAMILIES, Flow, MeanField
from pyro_latents.guides.pose_tvae import Scaled, pose_family
from pyro_latents.programs import SVI, centre, local_parameters
from pyro_latents.stories.pose_tvae.recipes import PoseDTVAEStory, PoseTVAEStory

KINDS = {"tvae": PoseTVAEStory, "dtvae": PoseDTVAEStory}
POSES = [("affine6", "none"), ("tps", "fitted"), ("affine5", "affine5"), ("tps", "full")]
GUIDES = ["paper", "full-rank", "flow", "delta"]


def make(kind: str, guide: str, warp: str = "affine6", prior: str = "fitted"):
    story = KINDS[kind](
        data="digits",
        z_dim=3,
        hidden_dim=16,
        warp=warp,
        pose_prior=prior,
        pose_rank=4 if prior == "full" else 0,
    )
    torch.manual_seed(0)
    model = story.build_model(lambda: None)
    return model, story.build_guide(guide, model)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize(("warp", "prior"), POSES)
def test_every_parameter_gets_a_finite_gradient(kind, guide, warp, prior):
    model, guide = make(kind, guide, warp, prior)
    with local_parameters(model, guide):
        TraceMeanField_ELBO(max_plate_nesting=1)(model, guide)(torch.rand(5, 1, 28, 28)).backward()
    for module in (model, guide):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("guide", GUIDES)
def test_vectorised_particles_and_parallel_prediction(kind, guide):
    model, guide = make(kind, guide)
    x = torch.rand(5, 1, 28, 28)
    elbo = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    with local_parameters(model, guide):
        assert math.isfinite(elbo.loss(model, guide, x))
        predictive = Predictive(
            poutine.uncondition(model), guide=guide, num_samples=4, parallel=True
        )
        draws = predictive(x)
    assert draws["u"].shape == (4, 5, 6)
    assert draws["x"].shape == (4, 5, 1, 28, 28)


@pytest.mark.parametrize("guide", ["paper", "full-rank", "flow", "point-mass"])
@pytest.mark.parametrize("prior", ["fitted", "none"])
def test_the_pose_starts_near_the_identity(kind, guide, prior):
    model, guide = make(kind, guide, "tps", prior)
    x = torch.rand(40, 1, 28, 28)
    with torch.no_grad():
        u = guide.posterior(x)["u"].rsample()
    assert u.abs().max() < 0.4
    if prior == "none":
        assert not u.any()


@pytest.mark.parametrize("guide", GUIDES)
def test_without_a_prior_the_pose_costs_nothing(kind, guide):
    model, guide = make(kind, guide, prior="none")
    x = torch.rand(5, 1, 28, 28)
    with local_parameters(model, guide):
        for run in (guide, poutine.replay(model, poutine.trace(guide).get_trace(x))):
            trace = poutine.trace(run).get_trace(x)
            trace.compute_log_prob()
            assert not trace.nodes["u"]["log_prob"].any()


def test_the_thesis_guides_are_independent_normals():
    model, guide = make("tvae", "paper")
    posterior = guide.posterior(torch.rand(2, 1, 28, 28))
    for name, dim in (("z", 3), ("u", 6)):
        assert isinstance(posterior[name].base_dist, torch.distributions.Normal)
        assert posterior[name].event_shape == (dim,)


def test_dtvae_encodes_the_image_with_the_pose_undone():
    model, guide = make("dtvae", "paper")
    x, u = torch.rand(4, 1, 28, 28), 0.2 * torch.randn(4, 6)
    turned = model.warp(x, u)
    upright = guide.upright(turned, u)
    torch.testing.assert_close(upright, model.warp.undo(turned, u))
    expected = guide.z(guide.encoder(upright)).mean
    found = guide.code_posterior(turned, guide.features(turned), u)
    torch.testing.assert_close(found.mean, expected)


def test_dtvae_undoes_the_pose_through_the_link_of_the_prior():
    model, guide = make("dtvae", "paper", "tps", "full")
    x, u = torch.rand(4, 1, 28, 28), torch.randn(4, 4)
    torch.testing.assert_close(guide.upright(x, u), model.warp.undo(x, model.prior.pose(u)))
    assert not any("link" in name for name in guide.state_dict())


def test_the_posterior_of_the_code_is_given_the_centre_of_the_pose(kind):
    _, guide = make(kind, "paper")
    x = torch.rand(2, 1, 28, 28)
    q = guide.posterior(x)
    expected = guide.code_posterior(x, guide.features(x), q["u"].mean)
    torch.testing.assert_close(q["z"].mean, expected.mean)


def test_the_flow_makes_the_code_depend_on_the_pose():
    model, guide = make("tvae", "flow")
    x = torch.rand(1, 1, 28, 28)
    with torch.no_grad():
        features = guide.features(x)
        one, two = (
            guide.code_posterior(x, features, torch.full((1, 6), value)) for value in (0.0, 1.0)
        )
        z = torch.zeros(1, 3)
        assert not torch.allclose(one.log_prob(z), two.log_prob(z))


def test_a_fresh_guide_loads_a_saved_one(kind):
    _, guide = make(kind, "flow")
    _, fresh = make(kind, "flow")
    fresh.load_state_dict(guide.state_dict())
    x = torch.rand(2, 1, 28, 28)
    draws = []
    for each in (guide, fresh):
        torch.manual_seed(1)
        draws.append(each(x)["z"])
    assert torch.equal(*draws)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "delta"])
def test_a_pose_family_starts_with_the_scale_of_its_prior(name):
    torch.manual_seed(0)
    prior = FittedNormal(6)
    family = pose_family(FAMILIES[name], 4, prior)
    spread = family(torch.randn(4)).sample((2000,)).std(0).mean().item()
    assert prior.initial_scale / 3 < spread < prior.initial_scale * 3


def test_a_scaled_flow_keeps_its_draws_density():
    torch.manual_seed(0)
    q = Scaled(Flow(4, 3), 0.1)(torch.randn(5, 4))
    u = q.rsample()
    torch.testing.assert_close(q.log_prob(u), q.log_prob(u.clone()), rtol=1e-4, atol=1e-4)


def test_the_centre_of_a_flow_is_a_draw():
    normal, flow = MeanField(4, 3)(torch.randn(4)), Flow(4, 3)(torch.randn(4))
    assert torch.equal(centre(normal), normal.mean)
    assert centre(flow).shape == (3,)


@pytest.mark.parametrize("guide", GUIDES)
def test_plain_svi_gives_the_loss_of_local_parameters(kind, guide):
    losses = []
    x = torch.rand(5, 1, 28, 28)
    for svi_class in (pyro.infer.SVI, SVI):
        pyro.clear_param_store()
        svi = svi_class(
            *make(kind, guide, "tps", "full"),
            pyro.optim.Adam({"lr": 1e-2}),
            TraceMeanField_ELBO(max_plate_nesting=1),
        )
        torch.manual_seed(1)
        losses.append([svi.step(x) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][2] != losses[0][0]
