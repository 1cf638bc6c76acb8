"""Refined guides reach the best normal for each data point."""

import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.distributions import Gamma, LogNormal, Normal, Poisson
from pyro.nn import PyroModule
from torch import nn

from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.guides import check_guide, refined
from pyro_latents.guides.refined import Refined


@pytest.fixture
def pca():
    torch.manual_seed(1)
    return LinearGaussian(z_dim=1)


def prior_guide(x, size=1):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", Normal(torch.zeros(len(x), 1), 1.0).to_event(1))


@pytest.mark.usefixtures("float64")
def test_it_reaches_the_exact_posterior_from_the_prior(pca):
    x = pca.model(size=30)
    guide = Refined(pca.model, prior_guide, steps=400, learning_rate=0.03)
    exact = pca.log_evidence(x)
    found = log_evidence(pca.model, guide, x, num_particles=100)
    torch.testing.assert_close(found.log_evidence, exact, atol=0.05, rtol=0)
    assert found.ess.mean() > 90
    plain = bound_terms(pca.model, prior_guide, Plain(Examples(x)))["elbo"]
    improved = bound_terms(pca.model, guide, Plain(Examples(x)))["elbo"]
    assert plain < improved - 1
    posterior = guide.posterior(x)["z"]
    covariance = pca.posterior_covariance
    expected = x @ pca.weight @ covariance / pca.scale**2
    torch.testing.assert_close(posterior.mean, expected, atol=0.1, rtol=0)


@pytest.mark.usefixtures("float64")
def test_sites_that_share_a_plate_are_refined_together():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", Normal(0.0, 1.0))
            b = pyro.sample("b", Normal(a, 1.0))
            pyro.sample("x", Normal(b, 1.0), obs=x)

    def prior(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("a", Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("b", Normal(torch.zeros(len(x)), 1.0))

    x = torch.tensor([-3.0, 0.0, 6.0])
    found = Refined(model, prior, steps=300, learning_rate=0.1).posterior(x)
    torch.testing.assert_close(found["a"].mean, x / 3, atol=0.15, rtol=0)
    torch.testing.assert_close(found["b"].mean, 2 * x / 3, atol=0.15, rtol=0)


@pytest.mark.usefixtures("float64")
def test_positive_supports_are_kept():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            rate = pyro.sample("rate", Gamma(torch.tensor(2.0), 1.0))
            pyro.sample("x", Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("rate", LogNormal(torch.zeros(len(x)), 0.5))

    x = torch.tensor([0.0, 3.0, 12.0])
    improved = Refined(model, guide, steps=400)
    check_guide(model, improved, x)
    draws = torch.stack([improved(x)["rate"] for _ in range(2000)])
    assert (draws > 0).all()
    # The posterior is Gamma(2 + x, 2).
    torch.testing.assert_close(draws.mean(0), (2 + x) / 2, rtol=0.1, atol=0.05)


def test_while_not_refining_it_is_the_guide_it_wraps(pca):
    guide = Refined(pca.model, prior_guide, refining=False)
    torch.manual_seed(0)
    ours = pyro.poutine.trace(guide).get_trace(torch.zeros(3, 5)).nodes["z"]["value"]
    torch.manual_seed(0)
    theirs = pyro.poutine.trace(prior_guide).get_trace(torch.zeros(3, 5)).nodes["z"]["value"]
    assert torch.equal(ours, theirs)


def refinements(monkeypatch):
    found = []
    climb = refined._Refinement.climb

    def counted(self, *arguments):
        found.append(1)
        climb(self, *arguments)

    monkeypatch.setattr(refined._Refinement, "climb", counted)
    return found


def test_a_batch_is_refined_once_and_again_after_it_or_a_parameter_changes(pca, monkeypatch):
    found = refinements(monkeypatch)
    encoder = PyroModule[nn.Linear](5, 1)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, x, size=1):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", Normal(self.encoder(x), 1.0).to_event(1))

    guide, x = Refined(pca.model, Guide(), steps=1), torch.zeros(3, 5)
    log_evidence(pca.model, guide, x, num_particles=1000)
    assert len(found) == 1
    x += 1
    guide.posterior(x)
    assert len(found) == 2
    with torch.no_grad():
        encoder.bias += 1
    guide.posterior(x)
    guide.posterior(x)
    assert len(found) == 3


def test_the_parameters_of_the_model_stay_its_own():
    model = PyroModule[nn.Linear](2, 2)
    assert not list(Refined(model, prior_guide).parameters())
