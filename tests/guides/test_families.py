import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import Distribution, MultivariateNormal, kl_divergence

from pyro_latents.distributions.flow import import_zuko
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FAMILIES, FullRank, LowRank
from pyro_latents.models.vae import VAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.programs import local_parameters

SHAPE = (1, 4, 4)


@pytest.fixture(params=FAMILIES)
def pair(request):
    model = VAE(DenseDecoder(3, SHAPE, [8]), z_dim=3)
    guide = Amortised(DenseEncoder(SHAPE, [8]), z=FAMILIES[request.param](8, 3))
    with local_parameters(model, guide):
        yield model, guide


@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(),
        TraceMeanField_ELBO(),
        Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    ],
    ids=["sampled", "analytic", "vectorised"],
)
def test_every_parameter_gets_a_gradient(pair, elbo):
    elbo(*pair)(torch.rand(5, *SHAPE)).backward()
    for module in pair:
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_it_works_in_predictive(pair):
    model, guide = pair
    x = torch.rand(5, *SHAPE)
    for parallel in (False, True):
        predictive = Predictive(
            poutine.uncondition(model), guide=guide, num_samples=4, parallel=parallel
        )
        draws = predictive(x)
        assert draws["z"].shape == (4, 5, 3)
        assert draws["x"].shape == (4, 5, *SHAPE)
        assert not torch.equal(draws["x"][0], x)


def test_a_fresh_guide_loads_a_saved_one(pair):
    _, guide = pair
    fresh = Amortised(DenseEncoder(SHAPE, [8]), z=type(guide.families["z"])(8, 3))
    fresh.load_state_dict(guide.state_dict())
    x = torch.rand(5, *SHAPE)
    draws = []
    for each in (guide, fresh):
        torch.manual_seed(1)
        draws.append(each(x)["z"])
    assert torch.equal(*draws)


@pytest.mark.parametrize("family", [FullRank, LowRank])
def test_it_starts_diagonal_and_learns_a_covariance_that_is_not(family):
    torch.manual_seed(0)
    wanted = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 0.25]])
    target = MultivariateNormal(torch.zeros(3), wanted)
    head, features = family(8, 3), torch.randn(8)
    first = head(features).covariance_matrix
    assert (first - first.diag().diag()).abs().max() < 0.01
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(1000):
        optimizer.zero_grad()
        kl_divergence(head(features), target).backward()
        optimizer.step()
    torch.testing.assert_close(head(features).covariance_matrix, wanted, atol=0.02, rtol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_draw_scores_as_its_copy_does(name):
    distribution = FAMILIES[name](8, 3)(torch.randn(5, 8))
    value = distribution.rsample()
    torch.testing.assert_close(distribution.log_prob(value), distribution.log_prob(value.clone()))


def test_importing_zuko_keeps_validation_on():
    Distribution.set_default_validate_args(True)
    import_zuko()
    assert Distribution._validate_args
