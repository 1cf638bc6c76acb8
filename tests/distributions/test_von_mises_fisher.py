import math

import pytest
import torch
from scipy import special, stats
from torch.distributions import kl_divergence

from pyro_latents.distributions.von_mises_fisher import (
    HypersphericalUniform,
    VonMisesFisher,
    log_sphere_area,
)

F64 = torch.float64
CASES = [(d, k) for d in (2, 3, 5, 10) for k in (0.01, 1.0, 20.0, 3000.0)]


def build(dim, kappa, seed=0):
    loc = torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return VonMisesFisher(loc / loc.norm(), torch.tensor(kappa, dtype=F64))


@pytest.mark.parametrize(("dim", "kappa"), CASES)
def test_the_density_is_that_of_the_bessel_function(dim, kappa):
    q = build(dim, kappa)
    nu = dim / 2 - 1
    log_bessel = math.log(special.ive(nu, kappa)) + kappa
    expected = 0.5 * dim * math.log(2 * math.pi) + log_bessel - nu * math.log(kappa)
    assert q.log_normaliser().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("dim", "kappa"), CASES)
def test_the_mean_cosine_is_a_ratio_of_bessel_functions(dim, kappa):
    expected = special.ive(dim / 2, kappa) / special.ive(dim / 2 - 1, kappa)
    assert build(dim, kappa).mean_cosine.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("dim", "kappa"), [(2, 3.0), (3, 3.0)])
def test_the_density_integrates_to_one(dim, kappa):
    q = build(dim, kappa)
    points = HypersphericalUniform(dim, torch.zeros((), dtype=F64)).sample((200_000,))
    mass = q.log_prob(points).exp().mean() * math.exp(log_sphere_area(dim))
    assert mass.item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("dim", "kappa"), CASES)
def test_draws_follow_the_density(dim, kappa):
    torch.manual_seed(0)
    q = build(dim, kappa)
    draws = q.sample((4000,))
    assert torch.allclose(draws.norm(dim=-1), torch.ones(4000, dtype=F64))
    theta, density, weight = q._angles()
    cosine = (draws * q.loc).sum(-1).clamp(-1, 1).acos().sort().values
    below = torch.searchsorted(theta, cosine)
    cumulative = torch.cat([torch.zeros(1, dtype=F64), (density * weight).cumsum(0)])
    uniform = cumulative[below] / cumulative[-1]
    assert stats.kstest(uniform.numpy(), "uniform").statistic < 0.04


def test_draws_are_even_around_the_mean_direction():
    torch.manual_seed(0)
    q = build(4, 5.0)
    draws = q.sample((20_000,))
    across = draws - (draws * q.loc).sum(-1, keepdim=True) * q.loc
    assert across.mean(0).norm() < 0.02


@pytest.mark.parametrize(("dim", "kappa"), [(2, 2.0), (3, 2.0), (6, 10.0), (6, 400.0)])
def test_gradients_of_draws_are_those_of_the_expectation(dim, kappa):
    torch.manual_seed(0)
    loc = build(dim, kappa).loc
    concentration = torch.tensor(kappa, dtype=F64, requires_grad=True)
    q = VonMisesFisher(loc, concentration)
    draws = q.rsample((4000,))
    (draws * loc).sum(-1).mean().backward()
    exact = torch.tensor(kappa, dtype=F64, requires_grad=True)
    VonMisesFisher(loc, exact).mean_cosine.backward()
    assert concentration.grad.item() == pytest.approx(exact.grad.item(), rel=0.1)


def test_the_divergence_from_the_uniform_is_an_expectation():
    torch.manual_seed(0)
    q, p = build(3, 4.0), HypersphericalUniform(3, torch.zeros((), dtype=F64))
    draws = q.sample((100_000,))
    estimate = (q.log_prob(draws) - p.log_prob(draws)).mean()
    assert kl_divergence(q, p).item() == pytest.approx(estimate.item(), abs=0.02)


def test_a_vanishing_concentration_is_the_uniform():
    q = build(3, 1e-6)
    assert kl_divergence(q, HypersphericalUniform(3)).item() == pytest.approx(0.0, abs=1e-6)


def test_batches_expand_and_draw_together():
    loc = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    q = VonMisesFisher(loc, torch.ones(5)).expand(torch.Size([4, 5]))
    assert q.sample((2,)).shape == (2, 4, 5, 3)
    assert q.log_prob(q.sample()).shape == (4, 5)


def test_refuses_what_is_not_on_the_sphere():
    with pytest.raises(ValueError, match="loc"):
        VonMisesFisher(torch.ones(3), torch.ones(()), validate_args=True)
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        HypersphericalUniform(1)


def test_the_mode_is_the_point_of_highest_density():
    torch.manual_seed(0)
    loc = torch.nn.functional.normalize(torch.randn(3), dim=0)
    q = VonMisesFisher(loc, torch.tensor(4.0))
    others = torch.nn.functional.normalize(torch.randn(500, 3), dim=1)
    assert torch.equal(q.mode, loc)
    assert bool((q.log_prob(others) < q.log_prob(q.mode)).all())
