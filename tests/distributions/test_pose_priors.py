import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions import MultivariateNormal

from pyro_latents.distributions.pose_priors import (
    Affine5Normal,
    FittedNormal,
    FullNormal,
    IdentityNormal,
    NoPrior,
)
from pyro_latents.warps import Affine5, Affine6, ThinPlateSpline

SIZE = (8, 8)
PRIORS = {
    "none": (lambda: NoPrior(18), ThinPlateSpline(SIZE)),
    "identity": (lambda: IdentityNormal(6), Affine6(SIZE)),
    "fitted": (lambda: FittedNormal(5), Affine5(SIZE)),
    "affine5": (lambda: Affine5Normal(), Affine6(SIZE)),
    "full-3": (lambda: FullNormal(18, 3), ThinPlateSpline(SIZE)),
}


@pytest.fixture(params=PRIORS.values(), ids=PRIORS)
def case(request):
    torch.manual_seed(0)
    make, warp = request.param
    return make(), warp


def test_a_new_prior_puts_zero_at_the_identity(case):
    prior, warp = case
    image = torch.rand(3, 1, *SIZE)
    assert torch.equal(warp(image, prior.pose(torch.zeros(3, prior.u_dim))), image)


def test_draws_and_poses_have_the_sizes_of_latent_and_warp(case):
    prior, warp = case
    with pyro.plate("data", 4, dim=-1), poutine.trace() as traced:
        u = pyro.sample("u", prior())
    assert u.shape == (4, prior.u_dim)
    assert prior.pose(torch.zeros(2, 4, prior.u_dim)).shape == (2, 4, warp.num_parameters)
    traced.trace.compute_log_prob()
    assert traced.trace.nodes["u"]["log_prob"].shape == (4,)


def test_every_parameter_gets_a_gradient(case):
    prior, _ = case
    u = torch.ones(prior.u_dim, requires_grad=True)
    (prior.pose(u).square().sum() + prior().log_prob(u).sum()).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_the_improper_prior_is_zero_nats_and_draws_the_identity():
    prior = NoPrior(6)()
    value = torch.randn(3, 2, 6)
    assert torch.equal(prior.expand([2]).log_prob(value), torch.zeros(3, 2))
    assert torch.equal(prior.expand([2]).sample((3,)), torch.zeros(3, 2, 6))


def test_the_identity_prior_keeps_its_centre():
    names = dict(IdentityNormal(6).named_parameters())
    assert list(names) == ["log_scale"]
    assert torch.equal(IdentityNormal(6)().mean, torch.zeros(6))


def test_a_linear_map_of_a_standard_normal_has_the_full_covariance():
    torch.manual_seed(0)
    prior = FullNormal(6, 6).double()
    torch.nn.init.normal_(prior.link.weight)
    torch.nn.init.normal_(prior.link.bias)
    w, b = prior.link.weight, prior.link.bias
    pose = prior.pose(prior().sample((200_000,)))
    torch.testing.assert_close(pose.mean(0), b, atol=0.03, rtol=0)
    torch.testing.assert_close(pose.T.cov(), w @ w.T, atol=0.15, rtol=0)
    # Its density, by the change of variables, is that of N(b, W W^T).
    u = torch.randn(6, dtype=torch.double)
    density = prior().log_prob(u) - torch.linalg.slogdet(w).logabsdet
    torch.testing.assert_close(density, MultivariateNormal(b, w @ w.T).log_prob(prior.pose(u)))


def test_the_rank_bounds_the_covariance():
    prior = FullNormal(18, 3)
    pose = prior.pose(prior().sample((500,)))
    assert torch.linalg.matrix_rank(pose.T.cov(), atol=1e-6, rtol=0) == 3


def test_affine5_is_the_five_parameter_warp():
    torch.manual_seed(0)
    u, image = 0.3 * torch.randn(4, 5), torch.rand(4, 1, *SIZE)
    expected = Affine5(SIZE)(image, u)
    torch.testing.assert_close(Affine6(SIZE)(image, Affine5Normal().pose(u)), expected)


@pytest.mark.parametrize("rank", [0, 7])
def test_rejects_a_rank_that_no_covariance_has(rank):
    with pytest.raises(ValueError, match=f"rank from 1 to 6.*got {rank}"):
        FullNormal(6, rank)
