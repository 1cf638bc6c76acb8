"""Reference posteriors against closed forms and Pyro's own NUTS, and guides against them."""

from math import log

import arviz
import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.distributions import Bernoulli, MultivariateNormal, Normal
from pyro.infer import MCMC, NUTS

from pyro_latents.checks.reference_io import read_reference, write_reference
from pyro_latents.errors import UserError
from pyro_latents.evaluation.reference import diagnosed, reference_posterior, score_against

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def pca():
    return LinearGaussian()


@pytest.fixture
def exact(pca):
    """Independent draws of the posterior as a reference of six data points, and these."""
    x = pca.model(size=6)
    draws = MultivariateNormal(loc(pca, x), pca.posterior_covariance).sample((4, 500))
    return x, diagnosed({"z": draws}, torch.ones(6))


def loc(pca, x):
    return x @ pca.weight @ pca.posterior_covariance / pca.scale**2


def moved_guide(pca, by):
    """The posterior of probabilistic PCA, moved by so many standard deviations."""
    scale_tril = torch.linalg.cholesky(pca.posterior_covariance)

    def guide(x, size=1):
        with pyro.plate("data", len(x), dim=-1):
            at = loc(pca, x) + scale_tril @ torch.tensor([by, 0.0])
            pyro.sample("z", MultivariateNormal(at, scale_tril=scale_tril))

    return guide


def test_chains_have_the_moments_of_the_posterior_from_a_guide_that_has_not(pca):
    x = pca.model(size=8)
    found = reference_posterior(
        pca.model, moved_guide(pca, 2.0), x, num_draws=120, num_temperatures=20
    )
    assert found.draws["z"].shape == (8, 120, 8, 2)
    assert found.r_hat["z"].shape == found.ess["z"].shape == (8, 2)
    assert found.is_agreed.all()
    draws = found.draws["z"].flatten(0, 1)
    error = (draws.mean(0) - loc(pca, x)) / pca.posterior_covariance.diagonal().sqrt()
    assert error.square().mean().sqrt() < 0.12
    centred = draws - draws.mean(0)
    covariance = torch.einsum("nbi,nbj->ij", centred, centred) / (8 * len(draws))
    torch.testing.assert_close(covariance, pca.posterior_covariance, rtol=0.1, atol=0.01)


def test_it_agrees_with_nuts_on_a_posterior_that_is_not_normal():
    weight = torch.tensor([2.0, -1.0, 3.0, 1.5])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", Bernoulli(logits=z[..., None] * weight).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Normal(torch.zeros(len(x)), 1.0))

    x = torch.tensor([[1.0, 1, 0, 0], [0.0, 0, 1, 0]])
    ours = reference_posterior(model, guide, x, num_draws=100, num_temperatures=10).draws["z"]
    nuts = MCMC(NUTS(model), num_samples=400, warmup_steps=120, disable_progbar=True)
    nuts.run(x)
    theirs = nuts.get_samples()["z"]
    ours = ours.flatten(0, 1)
    assert ((ours.mean(0) - theirs.mean(0)) / theirs.std(0)).abs().max() < 0.2
    assert (ours.std(0) / theirs.std(0) - 1).abs().max() < 0.2


def test_chains_that_disagree_leave_a_data_point_without_a_reference():
    draws = torch.randn(4, 300, 3, 2)
    draws[:2, :, 1] += 3.0
    found = diagnosed({"z": draws}, torch.ones(3))
    assert found.is_agreed.tolist() == [True, False, True]


def test_the_posterior_scores_as_itself(pca, exact):
    x, reference = exact
    score = score_against(reference, pca.model, pca.exact_guide, x)
    assert score.mean_error.shape == (6,)
    assert score.mean_error.max() < 0.15
    torch.testing.assert_close(score.spread, torch.ones(6), atol=0.08, rtol=0)
    torch.testing.assert_close(score.coverage[50], torch.full((6,), 0.5), atol=0.06, rtol=0)
    torch.testing.assert_close(score.coverage[90], torch.full((6,), 0.9), atol=0.04, rtol=0)
    assert score.energy_distance.abs().max() < 0.05
    assert score.divergence.abs().max() < 0.05


def test_a_guide_that_is_off_is_told_by_how_much(pca, exact):
    x, reference = exact
    scale = torch.linalg.cholesky(pca.posterior_covariance)
    moved = scale @ torch.tensor([2.0, 0.0]) / pca.posterior_covariance.diagonal().sqrt()
    score = score_against(reference, pca.model, moved_guide(pca, 2.0), x)
    expected = moved.square().mean().sqrt().expand(6)
    torch.testing.assert_close(score.mean_error, expected, atol=0.15, rtol=0)
    assert (score.energy_distance > 0.5).all()
    # Half the squared distance, in units of the posterior.
    torch.testing.assert_close(score.divergence, torch.full((6,), 2.0), atol=0.4, rtol=0)


def test_a_narrow_guide_covers_too_little(pca, exact):
    x, reference = exact
    score = score_against(reference, pca.model, pca.narrow_guide, x)
    torch.testing.assert_close(score.spread, torch.full((6,), 6**-0.5), atol=0.05, rtol=0)
    normal = torch.distributions.Normal(0.0, 1.0)
    quantile = normal.icdf(torch.tensor(0.95)) / 6**0.5
    expected = (2 * normal.cdf(quantile) - 1).expand(6)
    torch.testing.assert_close(score.coverage[90], expected, atol=0.06, rtol=0)
    # Of both coordinates together.
    divergence = torch.full((6,), 1 / 6 - 1 + log(6))
    torch.testing.assert_close(score.divergence, divergence, atol=0.15, rtol=0)


def test_a_reference_of_other_data_is_refused(pca, exact):
    _, reference = exact
    with pytest.raises(UserError, match="is of 6 data points, and 2 are given"):
        score_against(reference, pca.model, pca.exact_guide, torch.zeros(2, 5))


def test_a_reference_is_read_back_by_us_and_by_arviz(tmp_path, exact):
    x, reference = exact
    path = write_reference(reference, x, tmp_path / "reference.nc", {"model": "one"})
    found, data, attributes = read_reference(path)
    torch.testing.assert_close(found.draws["z"], reference.draws["z"])
    torch.testing.assert_close(found.r_hat["z"], reference.r_hat["z"])
    torch.testing.assert_close(data, x)
    assert attributes["model"] == "one"
    opened = arviz.from_netcdf(path)
    assert dict(opened["posterior"]["z"].sizes) == {
        "chain": 4,
        "draw": 500,
        "data_point": 6,
        "z_dim_0": 2,
    }


def test_a_file_that_is_no_reference_is_told_so(tmp_path):
    path = tmp_path / "reference.nc"
    path.write_text("nothing")
    with pytest.raises(UserError, match="is no reference, or damaged"):
        read_reference(path)
