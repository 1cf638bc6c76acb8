import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_latents.distributions.likelihoods import Bernoulli, GreyBernoulli, Normal


@pytest.mark.usefixtures("float64")
def test_grey_pixels_score_as_cross_entropy():
    logits, x = torch.randn(4, 1, 3, 3), torch.rand(4, 1, 3, 3)
    expected = -binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli()(logits).log_prob(x), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.usefixtures("float64")
def test_gradients_of_grey_pixels_are_those_of_cross_entropy():
    logits, x = 8 * torch.randn(5, 7), torch.rand(5, 7)

    def ours(logits, x):
        return -GreyBernoulli(logits=logits).log_prob(x)

    def theirs(logits, x):
        return binary_cross_entropy_with_logits(logits, x, reduction="none")

    inputs = logits.requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(ours, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ours, inputs)
    found, expected = (
        torch.func.vmap(torch.func.grad(lambda l, x, f=f: f(l, x).sum()))(*inputs)
        for f in (ours, theirs)
    )
    torch.testing.assert_close(found, expected)


def test_certain_pixels_keep_their_digits():
    logits = torch.tensor([0.0, -0.0, 30.0, -30.0, 100.0, -100.0, 3e38])
    for x in (torch.zeros(7), torch.ones(7), torch.full((7,), 0.25)):
        expected = -binary_cross_entropy_with_logits(logits, x, reduction="none")
        found = GreyBernoulli(logits=logits).log_prob(x)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_pixels_outside_of_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match="support"):
        Bernoulli()(torch.zeros(1, 1, 2, 2)).log_prob(torch.full((1, 1, 2, 2), 255.0))


def test_draws_are_binary_and_expanding_keeps_the_support():
    distribution = GreyBernoulli(logits=torch.zeros(3)).expand([50, 3])
    assert set(distribution.sample().unique().tolist()) == {0.0, 1.0}
    distribution.log_prob(torch.full((50, 3), 0.5))


@pytest.mark.parametrize("scale", [0.0, float("nan")])
def test_normal_refuses_a_scale_that_is_not_positive(scale):
    with pytest.raises(ValueError, match=f"positive scale; got {scale}"):
        Normal(scale)


def test_event_dims_make_the_event():
    assert Normal(0.1, event_dims=1)(torch.zeros(4, 20)).event_shape == (20,)
