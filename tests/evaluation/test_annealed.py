"""Annealing against evidences that are known, forward and back."""

from functools import partial

import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.distributions import (
    Bernoulli,
    Categorical,
    Delta,
    Gamma,
    ImproperUniform,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Poisson,
    constraints,
)
from pyro.infer.autoguide import AutoNormal

from pyro_latents.errors import UserError
from pyro_latents.evaluation import annealed, annealed_evidence, evidence_interval
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.guides.auto import auto_guide

pytestmark = pytest.mark.usefixtures("float64")


class TwoNatsOff:
    """The posterior of probabilistic PCA, moved by two standard deviations: a KL of 2 nats."""

    def __init__(self, pca):
        self.pca = pca
        self.seen = None

    def __call__(self, x, size=1):
        pca, self.seen = self.pca, x
        scale_tril = torch.linalg.cholesky(pca.posterior_covariance)
        loc = x @ pca.weight @ pca.posterior_covariance / pca.scale**2
        with pyro.plate("data", len(x), dim=-1):
            moved = loc + scale_tril @ torch.tensor([2.0, 0.0])
            pyro.sample("z", MultivariateNormal(moved, scale_tril=scale_tril))


def test_probabilistic_pca_is_bounded_from_both_sides_with_a_guide_two_nats_off():
    pca = LinearGaussian()
    guide = TwoNatsOff(pca)
    found = evidence_interval(
        pca.model, guide, pca.model(size=50), num_chains=16, num_temperatures=100
    )
    exact = pca.log_evidence(guide.seen)
    assert found.lower.shape == found.upper.shape == (50,)
    assert (found.lower - exact).mean().abs() < 0.02
    assert (found.upper - exact).mean().abs() < 0.02


def test_weights_are_unbiased_however_few_the_temperatures():
    pca = LinearGaussian()
    x = pca.model(size=1).expand(400, -1).clone()
    found = annealed_evidence(pca.model, TwoNatsOff(pca), x, num_chains=2, num_temperatures=4)
    exact = pca.log_evidence(x[:1])
    assert found.log_evidence.mean() < exact - 0.1
    ratio = (found.log_evidence - exact).exp()
    assert (ratio.mean() - 1).abs() < 3 * ratio.std() / 400**0.5
    assert ((found.ess >= 1) & (found.ess <= 2)).all()
    # Of two chains over four moves each, so that single ones may be low.
    assert ((found.acceptance > 0) & (found.acceptance <= 1)).all()
    assert found.acceptance.mean() > 0.7


def mixture_model(x):
    """Two modes, of which the guide has one: in one dimension, so that the truth is a sum."""
    with pyro.plate("data", len(x)):
        parts = Normal(torch.tensor([-2.0, 2.0]), 1.0)
        z = pyro.sample("z", MixtureSameFamily(Categorical(torch.ones(2)), parts))
        pyro.sample("x", Normal(z, 3.0), obs=x)


def guide_of_one_mode(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", Normal(2.0, 0.5).expand([len(x)]))


def sure_of_something_else(x):
    """A guide of a millionth of the posterior's width, far away from it."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", Normal(torch.full((len(x), 2), 9.0), 1e-6).to_event(1))


def test_a_guide_that_is_sure_of_something_else_is_not_begun_at():
    pca = LinearGaussian()
    x = pca.model(size=30)
    found = annealed_evidence(pca.model, sure_of_something_else, x, num_chains=16)
    torch.testing.assert_close(found.log_evidence, pca.log_evidence(x), atol=0.3, rtol=0)
    lower, upper = evidence_interval(pca.model, sure_of_something_else, x, num_chains=16)
    assert (upper - lower).mean() < 0.1
    assert (upper - lower).max() < 1.0


def test_a_mode_that_the_guide_misses_is_found():
    x = torch.linspace(-3, 1, 6)
    exact = Normal(torch.tensor([-2.0, 2.0]), 10**0.5).log_prob(x[:, None])
    exact = exact.logsumexp(-1) - torch.tensor(2.0).log()
    weighted = log_evidence(mixture_model, guide_of_one_mode, x, num_particles=1000)
    assert (weighted.log_evidence < exact - 0.4).all()
    found = annealed_evidence(
        mixture_model, guide_of_one_mode, x, num_chains=100, num_temperatures=100
    )
    assert (found.log_evidence - exact).mean().abs() < 0.1
    assert (found.log_evidence - exact).abs().max() < 0.35


def test_the_interval_holds_the_evidence_where_the_guide_misses_a_mode():
    seen = []

    def guide(x):
        seen.append(x)
        guide_of_one_mode(x)

    found = evidence_interval(
        mixture_model, guide, torch.zeros(40), num_chains=16, num_temperatures=60
    )
    exact = Normal(torch.tensor([-2.0, 2.0]), 10**0.5).log_prob(seen[-1][:, None])
    exact = exact.logsumexp(-1) - torch.tensor(2.0).log()
    weighted = log_evidence(mixture_model, guide_of_one_mode, seen[-1], num_particles=1000)
    assert weighted.log_evidence.mean() < exact.mean() - 0.4
    assert found.lower.mean() < exact.mean() + 0.05
    assert found.upper.mean() > exact.mean() - 0.05


def class_model(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", Categorical(torch.tensor([0.2, 0.3, 0.5])))
        z = pyro.sample("z", Normal(torch.tensor([-3.0, 0.0, 3.0])[k], 0.5))
        pyro.sample("x", Normal(z, 1.0), obs=x)


def class_guide(x):
    with pyro.plate("data", len(x)):
        logits = -(x[:, None] - torch.tensor([-3.0, 0.0, 3.0])).square() / 4
        k = pyro.sample("k", Categorical(logits=logits), infer={"enumerate": "parallel"})
        pyro.sample("z", Normal(x / 2 + torch.tensor([-1.5, 0.0, 1.5])[k], 0.7))


def classless_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", Normal(x, 1.0))


@pytest.mark.parametrize("guide", [class_guide, classless_guide])
def test_a_class_is_summed_out(guide):
    if guide is classless_guide:
        model = pyro.infer.config_enumerate(class_model)
    else:
        model = class_model
    x = torch.linspace(-4, 4, 12)
    parts = Normal(torch.tensor([-3.0, 0.0, 3.0]), 1.25**0.5)
    exact = (parts.log_prob(x[:, None]) + torch.tensor([0.2, 0.3, 0.5]).log()).logsumexp(-1)
    found = annealed_evidence(model, guide, x, num_chains=400, num_temperatures=20)
    assert (found.log_evidence - exact).abs().max() < 0.1
    assert (found.log_evidence - exact).mean().abs() < 0.03


def test_discrete_sites_of_a_plate_within_are_summed_each_by_itself():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("views", x.shape[1], dim=-1):
                j = pyro.sample("j", Bernoulli(0.4), infer={"enumerate": "parallel"})
                pyro.sample("x", Normal(z + 2 * j, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", Normal(x.mean(1, keepdim=True) - 0.8, 0.8))

    x = torch.randn(5, 2)
    shifts = torch.cartesian_prod(*[torch.tensor([0.0, 2.0])] * 2)
    weights = torch.where(shifts > 0, 0.4, 0.6).log().sum(-1)
    covariance = torch.eye(2) + torch.ones(2, 2)
    parts = MultivariateNormal(shifts, covariance).log_prob(x[:, None])
    found = annealed_evidence(model, guide, x, num_chains=100, num_temperatures=20)
    assert (found.log_evidence - (parts + weights).logsumexp(-1)).abs().max() < 0.1


def test_a_positive_variable_is_annealed_on_the_real_line():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", Gamma(2.0, 0.5))
            pyro.sample("x", Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", LogNormal((x + 1).log(), 0.8))

    x = torch.tensor([0.0, 1.0, 3.0, 8.0])
    exact = torch.distributions.NegativeBinomial(2.0, 1 / torch.tensor(1.5)).log_prob(x)
    found = annealed_evidence(model, guide, x, num_chains=200, num_temperatures=20)
    assert (found.log_evidence - exact).abs().max() < 0.15


def test_an_automatic_guide_of_this_batch_is_annealed():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", Gamma(2.0, 0.5))
            pyro.sample("x", Poisson(rate), obs=x)

    x = torch.tensor([0.0, 1.0, 3.0, 8.0])
    exact = torch.distributions.NegativeBinomial(2.0, 1 / torch.tensor(1.5)).log_prob(x)
    guide = auto_guide(partial(AutoNormal, init_scale=0.7), model, x)
    found = annealed_evidence(model, guide, x, num_chains=200, num_temperatures=40)
    assert (found.log_evidence - exact).abs().max() < 0.2


def test_few_data_points_at_a_time_give_the_same_evidence(monkeypatch):
    monkeypatch.setattr(annealed, "LANES", 50)
    pca = LinearGaussian()
    x = pca.model(size=8)
    found = annealed_evidence(pca.model, pca.wide_guide, x, num_chains=10, num_temperatures=20)
    assert (found.log_evidence - pca.log_evidence(x)).abs().max() < 0.35


def two_sites(z_of_model, z_of_guide):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", z_of_model)
            pyro.sample("x", Normal(0.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", z_of_guide)

    return model, guide


def uniform_on_the_sphere():
    from pyro_latents.distributions.von_mises_fisher import HypersphericalUniform

    return HypersphericalUniform(3, torch.zeros(()))


@pytest.mark.parametrize(
    ("of_model", "of_guide", "message"),
    [
        (Normal(0.0, 1.0), Delta(torch.zeros(())), "'z' of the guide is a point mass"),
        (Delta(torch.zeros(())), Normal(0.0, 1.0), "'z' of the model is a point mass"),
        (Poisson(1.0), Poisson(1.0), "'z' is discrete, and has no finite support"),
    ],
)
def test_a_site_that_chains_cannot_move_on_is_named(of_model, of_guide, message):
    with pytest.raises(UserError, match=message):
        annealed_evidence(*two_sites(of_model, of_guide), torch.zeros(3), num_temperatures=5)


def test_a_site_on_the_sphere_is_named():
    sphere = uniform_on_the_sphere()
    with pytest.raises(UserError, match="'z' has a support that cannot be laid on the real line"):
        annealed_evidence(*two_sites(sphere, sphere), torch.zeros(3), num_temperatures=5)


def test_a_guide_that_misses_a_site_is_told_so():
    model, _ = two_sites(Normal(0.0, 1.0), Normal(0.0, 1.0))
    with pytest.raises(UserError, match="does not sample 'z'"):
        annealed_evidence(model, lambda x: None, torch.zeros(3))


def test_an_interval_of_an_improper_prior_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ImproperUniform(constraints.real, (), ()))
            pyro.sample("x", Normal(z, 1.0), obs=x)

    with pytest.raises(UserError, match="cannot be drawn from, as an interval must"):
        evidence_interval(model, classless_guide, torch.zeros(3), num_temperatures=5)


@pytest.mark.parametrize("counts", [{"num_chains": 0}, {"num_temperatures": 1}])
def test_counts_must_be_enough(counts):
    pca = LinearGaussian()
    with pytest.raises(UserError, match="must be at least"):
        annealed_evidence(pca.model, pca.wide_guide, torch.zeros(2, 5), **counts)
