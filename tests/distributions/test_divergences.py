import pytest
import torch
from pyro.distributions import (
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)
from torch.distributions import kl_divergence

import pyro_latents.distributions.divergences  # noqa: F401 - registers what is tested

torch.manual_seed(0)
LOC, SCALE = torch.randn(3), torch.rand(3) + 0.5
FACTOR = torch.randn(5, 3, 3)
COVARIANCE = FACTOR @ FACTOR.mT + 0.1 * torch.eye(3)
LOW_RANK = LowRankMultivariateNormal(
    torch.randn(5, 3), torch.randn(5, 3, 2), torch.rand(5, 3) + 0.1
)


@pytest.mark.parametrize("p", [MultivariateNormal(torch.randn(5, 3), COVARIANCE), LOW_RANK])
def test_it_is_that_of_the_same_normals_with_a_diagonal_covariance(p):
    found = kl_divergence(p, Normal(LOC, SCALE).expand([5, 3]).to_event(1))
    full = MultivariateNormal(p.mean, p.covariance_matrix)
    expected = kl_divergence(full, MultivariateNormal(LOC, SCALE.square().diag()))
    assert found.shape == (5,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_other_kinds_have_no_closed_form():
    with pytest.raises(NotImplementedError):
        kl_divergence(LOW_RANK, Independent(Laplace(torch.zeros(5, 3), 1.0), 1))
