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

pytestmark = pytest.mark.usefixtures("float64")


def full_rank():
    factor = torch.randn(5, 3, 3)
    return MultivariateNormal(torch.randn(5, 3), factor @ factor.mT + 0.1 * torch.eye(3))


def low_rank():
    return LowRankMultivariateNormal(
        torch.randn(5, 3), torch.randn(5, 3, 2), torch.rand(5, 3) + 0.1
    )


@pytest.mark.parametrize("kind", [full_rank, low_rank])
def test_it_is_that_of_the_same_normals_with_a_diagonal_covariance(kind):
    p, loc, scale = kind(), torch.randn(3), torch.rand(3) + 0.5
    found = kl_divergence(p, Normal(loc, scale).expand([5, 3]).to_event(1))
    full = MultivariateNormal(p.mean, p.covariance_matrix)
    expected = kl_divergence(full, MultivariateNormal(loc, scale.square().diag()))
    assert found.shape == (5,)
    torch.testing.assert_close(found, expected)


def test_other_kinds_have_no_closed_form():
    with pytest.raises(NotImplementedError):
        kl_divergence(low_rank(), Independent(Laplace(torch.zeros(5, 3), 1.0), 1))
