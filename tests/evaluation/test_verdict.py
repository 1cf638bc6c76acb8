"""Draws of the posterior by the cheapest way that is right, and what each data point's are."""

import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.distributions import MultivariateNormal

from pyro_latents.errors import UserError
from pyro_latents.evaluation import verdict
from pyro_latents.evaluation.pareto import largest_reliable_k, pareto_smoothed
from pyro_latents.evaluation.verdict import CHAINS, GUIDE, KINDS, SMOOTHED, trusted_posterior

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def pca():
    torch.manual_seed(3)
    return LinearGaussian()


def posterior(pca, x):
    return x @ pca.weight @ pca.posterior_covariance / pca.scale**2, pca.posterior_covariance


def check(pca, x, draws):
    """See that draws `draws batch dim` have the posterior's means and covariances."""
    loc, covariance = posterior(pca, x)
    error = (draws.mean(0) - loc) / covariance.diagonal().sqrt()
    assert error.abs().max() < 0.25
    found = torch.stack([torch.cov(point.T) for point in draws.transpose(0, 1)]).mean(0)
    torch.testing.assert_close(found, covariance, atol=0.0, rtol=0.25)


def test_each_guide_gets_what_its_weights_allow(pca):
    x = pca.model(size=6)
    kinds = {
        "exact_guide": GUIDE,
        "wide_guide": SMOOTHED,
        "narrow_guide": CHAINS,
    }
    for name, kind in kinds.items():
        found = trusted_posterior(pca.model, getattr(pca, name), x, num_temperatures=10)
        assert (found.kinds == kind).double().mean() > 0.8, name
        assert found.shares[KINDS[kind]] > 80
        assert sum(found.shares.values()) == pytest.approx(100)
        assert found.draws["z"].shape == (1000, 6, 2)
        check(pca, x, found.draws["z"])


def test_each_data_point_has_a_verdict_of_its_own(pca):
    x = pca.model(size=8)

    def of_rows(x, rows):
        loc, covariance = posterior(pca, x)
        with pyro.plate("data", len(x), dim=-1):
            narrow = 1.0 - 0.9 * (rows % 2)
            pyro.sample("z", MultivariateNormal(loc, covariance * narrow[:, None, None]))

    found = trusted_posterior(
        lambda x, rows: pca.model(x), of_rows, x, torch.arange(8), num_temperatures=10
    )
    assert found.kinds.tolist() == [GUIDE, CHAINS] * 4
    check(pca, x, found.draws["z"])


def test_chains_that_never_agree_are_told(pca, monkeypatch):
    monkeypatch.setattr(verdict, "ROUNDS", 1)
    x = pca.model(size=2)
    found = trusted_posterior(
        pca.model, pca.narrow_guide, x, draws=30, num_chains=8, num_temperatures=2
    )
    # Four draws of a chain are worth less than a reference has to be.
    assert found.shares["none"] == 100


@pytest.mark.parametrize("tail", [0.3, 0.6, 1.2])
def test_smoothed_weights_are_those_of_arviz(tail):
    log_weights = tail * torch.distributions.Exponential(1.0).sample((900, 6))
    ours, _ = pareto_smoothed(log_weights)
    from pyro_latents.checks.arviz_io import is_data_tree

    if is_data_tree():
        from arviz_stats.base import array_stats

        theirs = array_stats.psislw(-log_weights.T.numpy())[0]
    else:
        import arviz

        theirs = arviz.psislw(log_weights.T.numpy())[0]
    np.testing.assert_allclose(ours.T.numpy(), theirs, atol=1e-6)


def test_smoothing_makes_a_mean_of_heavy_weights_better():
    # Of weights with a Pareto tail of shape .6, whose mean is known.
    log_weights = 0.6 * torch.distributions.Exponential(1.0).sample((500, 2000))
    smooth, k_hat = pareto_smoothed(log_weights)
    assert k_hat.mean() == pytest.approx(0.6, abs=0.05)
    raw = log_weights.log_softmax(0)
    # The largest share is what makes the sum uncertain.
    assert smooth.exp().amax(0).std() < raw.exp().amax(0).std()
    torch.testing.assert_close(smooth.exp().sum(0), torch.ones(2000))


def test_the_threshold_depends_on_the_draws():
    assert largest_reliable_k(100) == pytest.approx(0.5)
    assert largest_reliable_k(1000) == pytest.approx(2 / 3)
    assert largest_reliable_k(10**6) == 0.7
    assert largest_reliable_k(1) == -float("inf")


def test_few_draws_have_no_verdict(pca):
    with pytest.raises(UserError, match="--draws must be at least 25; got 24"):
        trusted_posterior(pca.model, pca.exact_guide, pca.model(size=2), draws=24)
