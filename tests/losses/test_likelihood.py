import pyro
import pytest
import torch
from pyro.distributions import Delta, ImproperUniform, Normal, constraints

from pyro_latents.errors import UserError
from pyro_latents.losses.likelihood import LikelihoodLoss


@pytest.fixture
def pair():
    x = torch.randn(4, dtype=torch.float64)

    def model():
        with pyro.plate("data", 4):
            pyro.sample("unknown to the guide", Normal(0.0, 1.0))
            z = pyro.sample("z", Normal(0.0, 1.0))
            pyro.sample("x", Normal(z, 0.5), obs=x)

    def guide():
        with pyro.plate("data", 4):
            pyro.sample("z", Delta(x))

    return model, guide, x


def test_is_the_likelihood_at_the_draws_of_the_guide(pair):
    model, guide, x = pair
    expected = -Normal(x, 0.5).log_prob(x).sum()
    assert LikelihoodLoss(num_particles=2).loss(model, guide) == pytest.approx(expected.item())


def test_weighs_the_sites(pair):
    model, guide, _ = pair
    whole = LikelihoodLoss().loss(model, guide)
    assert LikelihoodLoss(weights={"x": 0.1}).loss(model, guide) == pytest.approx(0.1 * whole)


def test_a_weight_of_no_site_is_refused(pair):
    model, guide, _ = pair
    with pytest.raises(UserError, match="'y', which is no site of the model"):
        LikelihoodLoss(weights={"y": 0.1}).loss(model, guide)


def test_a_prior_may_be_flat(pair):
    _, guide, x = pair

    def flat():
        with pyro.plate("data", 4):
            z = pyro.sample("z", ImproperUniform(constraints.real, (), ()))
            pyro.sample("x", Normal(z, 0.5), obs=x)

    expected = -Normal(x, 0.5).log_prob(x).sum()
    assert LikelihoodLoss().loss(flat, guide) == pytest.approx(expected.item())
