import pytest
import torch

from pyro_latents.losses.kernels import (
    RBF,
    InverseMultiquadric,
    mmd_squared,
    pairwise_squared_distance,
)

KERNELS = pytest.mark.parametrize("kernel", [RBF, InverseMultiquadric])
REFERENCES = pytest.mark.parametrize("reference", [None, 3.0])


@KERNELS
@REFERENCES
def test_kernel_is_one_at_zero_and_falls(kernel, reference):
    values = kernel(reference=reference)(torch.tensor([0.0, 1.0, 4.0, 9.0]).double(), dim=3)
    assert values[0] == 1.0
    assert (values.diff() < 0).all()
    assert (values > 0).all()


@KERNELS
def test_kernel_is_positive_definite(kernel):
    torch.manual_seed(0)
    gram = kernel()(pairwise_squared_distance(torch.randn(30, 4).double()), dim=4)
    assert torch.linalg.eigvalsh(gram).min() > -1e-12


def test_the_reference_is_the_typical_squared_distance():
    torch.manual_seed(0)
    squared = pairwise_squared_distance(torch.randn(400, 50).double())
    value = InverseMultiquadric((1.0,))(squared, 50)
    assert value[squared > 0].mean() == pytest.approx(0.5, abs=0.02)


def test_pairwise_squared_distance_is_that_of_differences():
    torch.manual_seed(0)
    x = torch.randn(7, 3).double() + 100
    slow = (x[:, None] - x[None]).square().sum(-1)
    torch.testing.assert_close(pairwise_squared_distance(x), slow)


def test_pairwise_squared_distance_has_a_gradient_where_rows_agree():
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    pairwise_squared_distance(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@KERNELS
def test_unbiased_estimator_is_the_double_loop(kernel):
    torch.manual_seed(0)
    x, y = torch.randn(2, 6, 3).double()
    groups = torch.tensor([0, 0, 1, 1, 2, 3])
    weights = torch.rand(6).double()
    k = kernel()

    def at(a, b):
        return k((a - b).square().sum(), 3)

    total, pairs = 0.0, 0.0
    for i in range(6):
        for j in range(6):
            if groups[i] != groups[j]:
                h = at(x[i], x[j]) + at(y[i], y[j]) - at(x[i], y[j]) - at(y[i], x[j])
                total += weights[i] * weights[j] * h
                pairs += weights[i] * weights[j]
    estimate = mmd_squared(x, y, k, groups=groups, weights=weights)
    torch.testing.assert_close(estimate, total / pairs)


def test_biased_estimator_is_zero_for_the_same_points_and_never_negative():
    torch.manual_seed(0)
    x, y = torch.randn(2, 8, 3).double()
    assert mmd_squared(x, x, RBF(), unbiased=False).abs() < 1e-12
    assert mmd_squared(x, y, RBF(), unbiased=False) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": ()}, "positive scales"),
        ({"scales": (1.0, 0.0)}, "positive scales"),
        ({"reference": 0.0}, "reference > 0"),
    ],
)
def test_rejects_lengths_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        RBF(**arguments)
