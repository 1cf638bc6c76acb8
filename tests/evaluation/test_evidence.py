import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.distributions import Normal

from pyro_latents.checks.arviz_io import is_data_tree
from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import ImportanceSampling, log_evidence
from pyro_latents.evaluation.pareto import pareto_k

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def pca():
    return LinearGaussian()


def test_the_exact_guide_gives_the_exact_evidence_with_one_particle(pca):
    x = pca.model(size=40)
    estimate = log_evidence(pca.model, pca.exact_guide, x, num_particles=1)
    torch.testing.assert_close(estimate.log_evidence, pca.log_evidence(x))
    torch.testing.assert_close(estimate.elbo, estimate.log_evidence)


def test_the_exact_guide_has_good_diagnostics(pca):
    estimate = log_evidence(pca.model, pca.exact_guide, pca.model(size=40), num_particles=200)
    assert (estimate.k_hat < 0.5).all()
    torch.testing.assert_close(estimate.ess, torch.full((40,), 200.0))


def test_a_wide_guide_converges_to_the_evidence(pca):
    x = pca.model(size=20)
    estimate = log_evidence(pca.model, pca.wide_guide, x, num_particles=5000)
    torch.testing.assert_close(estimate.log_evidence, pca.log_evidence(x), atol=0.05, rtol=0)


def test_a_narrow_guide_is_told_by_its_k_hat(pca):
    estimate = log_evidence(pca.model, pca.narrow_guide, pca.model(size=50), num_particles=1000)
    assert (estimate.k_hat > 0.7).double().mean() > 0.5


def test_the_bound_is_below_the_importance_estimate_below_the_evidence(pca):
    x = pca.model(size=400)
    elbo = bound_terms(pca.model, pca.wide_guide, Plain(Examples(x)))["elbo"]
    iwae = log_evidence(pca.model, pca.wide_guide, x, num_particles=5).log_evidence.mean().item()
    assert elbo < iwae < pca.log_evidence(x).mean().item()
    many = log_evidence(pca.model, pca.wide_guide, x, num_particles=200)
    assert many.elbo.mean().item() == pytest.approx(elbo, rel=0.02)


def test_the_bound_of_the_exact_guide_is_the_evidence(pca):
    x = pca.model(size=7)
    terms = bound_terms(pca.model, pca.exact_guide, Plain(Examples(x)))
    assert terms["elbo"] == pytest.approx(terms["reconstruction"] - terms["kl_z"])
    # The divergence is analytic and the reconstruction drawn, so they agree on average only.
    many = Plain(Examples(x.repeat(20_000, 1)))
    elbo = bound_terms(pca.model, pca.exact_guide, many, batch_size=20_000)["elbo"]
    assert elbo == pytest.approx(pca.log_evidence(x).mean().item(), abs=0.02)


def test_plates_within_the_data_plate_count_towards_their_data_point():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("views", x.shape[1], dim=-1):
                pyro.sample("x", Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            views = x.shape[1]
            mean = x.sum(1, keepdim=True) / (views + 1)
            pyro.sample("z", Normal(mean, (1 / (views + 1)) ** 0.5))

    x = torch.randn(6, 3)
    covariance = torch.eye(3) + torch.ones(3, 3)
    exact = torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)
    estimate = log_evidence(model, guide, x, num_particles=3)
    torch.testing.assert_close(estimate.log_evidence, exact)


def test_a_site_outside_of_the_data_plate_is_named():
    def model(x):
        scale = pyro.sample("scale", Normal(0.0, 1.0)).exp()
        with pyro.plate("data", len(x)):
            pyro.sample("x", Normal(0.0, scale), obs=x)

    def guide(x):
        pyro.sample("scale", Normal(0.0, 1.0))

    with pytest.raises(UserError, match="site 'scale' lies outside of a data plate of size 4"):
        log_evidence(model, guide, torch.randn(4))


def test_particles_must_be_positive(pca):
    with pytest.raises(UserError, match="num_particles must be at least 1; got 0"):
        log_evidence(pca.model, pca.exact_guide, torch.randn(2, 5), num_particles=0)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_how_to_sample_must_be_positive(value):
    with pytest.raises(UserError, match=f"--particles must be at least 1; got {value}"):
        ImportanceSampling(particles=value)
    with pytest.raises(UserError, match=f"--likelihood-points must be at least 1; got {value}"):
        ImportanceSampling(points=value)


def arviz_k(log_weights):
    """The k-hat of the ArviZ that is installed; from 1 on it asks for minus the log ratios."""
    draws_last = log_weights.T.numpy()
    if is_data_tree():
        from arviz_stats.base import array_stats

        return array_stats.psislw(-draws_last)[1]
    import arviz

    return arviz.psislw(draws_last)[1]


@pytest.mark.parametrize("tail", [0.2, 0.5, 0.9, 1.3])
def test_pareto_k_is_that_of_arviz(tail):
    # Three times the root is whole here; else ArviZ 0.23 rounds the length of the tail up, as R's
    # loo and we do, and ArviZ 1 rounds it down.
    log_weights = tail * torch.distributions.Exponential(1.0).sample((900, 6))
    expected = arviz_k(log_weights)
    np.testing.assert_allclose(pareto_k(log_weights).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("k_hat", [lambda w: pareto_k(w).numpy(), arviz_k], ids=["ours", "arviz"])
def test_the_shape_of_a_heavy_tail_is_found(k_hat):
    # Weights that are Pareto distributed of shape 0.9; those of minus the log ratios are bounded.
    log_weights = 0.9 * torch.distributions.Exponential(1.0).sample((4000, 20))
    assert k_hat(log_weights).mean() == pytest.approx(0.9, abs=0.05)
    assert k_hat(-log_weights).max() < 0.0


def test_pareto_k_needs_a_tail():
    assert pareto_k(torch.randn(20, 3)).isinf().all()
