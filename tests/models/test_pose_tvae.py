import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive

from pyro_latents.distributions.pose_priors import FittedNormal, NoPrior
from pyro_latents.models.pose_tvae import CLIP, PoseTVAE
from pyro_latents.nets.mlp import DenseDecoder
from pyro_latents.warps import Affine6

pytestmark = pytest.mark.usefixtures("float64")
SHAPE = (1, 8, 8)


def make(prior=None) -> PoseTVAE:
    torch.manual_seed(0)
    return PoseTVAE(
        DenseDecoder(3, SHAPE, [8]), Affine6(SHAPE[1:]), prior or FittedNormal(6), z_dim=3
    ).double()


def scored(model: PoseTVAE, x: torch.Tensor, z: torch.Tensor, u: torch.Tensor):
    trace = poutine.trace(poutine.condition(model, {"z": z, "u": u})).get_trace(x)
    trace.compute_log_prob()
    return trace


def test_the_likelihood_is_that_of_the_clipped_and_warped_probabilities():
    model, x = make(), torch.rand(4, *SHAPE)
    z, u = torch.randn(4, 3), 0.5 * torch.randn(4, 6)
    p = model.warp(torch.sigmoid(model.decoder(z)), u).clamp(CLIP, 1 - CLIP)
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum((-3, -2, -1))
    torch.testing.assert_close(scored(model, x, z, u).nodes["x"]["log_prob"], expected)


def test_the_joint_is_prior_times_likelihood():
    model, x = make(), torch.rand(4, *SHAPE)
    z, u = torch.randn(4, 3), torch.randn(4, 6)
    trace = scored(model, x, z, u)
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], normal.log_prob(z).sum(-1))
    torch.testing.assert_close(trace.nodes["u"]["log_prob"], model.prior().log_prob(u))


@pytest.mark.parametrize("shift", [1e4, -1e4, 3.0])
def test_a_pose_far_away_leaves_finite_densities_and_gradients(shift):
    model, x = make(), torch.ones(2, *SHAPE)
    u = torch.full((2, 6), shift, requires_grad=True)
    loss = -scored(model, x, torch.randn(2, 3), u).nodes["x"]["log_prob"].sum()
    loss.backward()
    assert loss.isfinite()
    assert u.grad.isfinite().all()


def test_saturated_pixels_cost_no_more_than_the_clip_allows():
    model = make().float()
    torch.nn.init.constant_(model.decoder.layers[-1].bias, 200.0)
    x = torch.zeros(1, *SHAPE, dtype=torch.float32)
    zeros = torch.zeros(1, 6, dtype=torch.float32)
    log_prob = scored(model, x, zeros[:, :3], zeros).nodes["x"]["log_prob"]
    # float32 rounds 1 - 1e-6 to a multiple of 6e-8.
    torch.testing.assert_close(
        log_prob.item(), 64 * torch.tensor(CLIP).log().item(), rtol=5e-3, atol=0
    )


def test_the_identity_pose_is_the_reference():
    model, z = make(), torch.randn(5, 3)
    assert torch.equal(model.probabilities(z, torch.zeros(5, 6)), model.reference(z))


def test_draws_without_a_prior_are_in_the_reference_pose():
    model = make(NoPrior(6))
    trace = poutine.trace(model).get_trace(size=7)
    assert trace.nodes["x"]["value"].shape == (7, *SHAPE)
    assert not trace.nodes["u"]["value"].any()


def test_prior_predictive_draws_vary_in_pose():
    draws = Predictive(make(), num_samples=5, parallel=True)(size=3)
    assert draws["x"].shape == (5, 3, *SHAPE)
    assert draws["u"].std(dim=(0, 1)).min() > 0


def test_particles_lead():
    model, z, u = make(), torch.randn(2, 5, 3), torch.randn(2, 5, 6)
    together = model.probabilities(z, u)
    torch.testing.assert_close(together[1], model.probabilities(z[1], u[1]))
