"""Likelihoods: from a decoder's output to the distribution of an observation."""

from typing import Any

import torch
from pyro.distributions import Bernoulli as PyroBernoulli
from pyro.distributions import Normal as PyroNormal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_latents.nets.precision import in_single


class _LogBernoulli(torch.autograd.Function):
    """`x l - log(1 + exp(l))` of grey values x and logits l, of one shape.

    PyTorch's cross-entropy takes `log1p`, which it computes number by number on a processor with
    AVX-512: six times as long as all of this. What is lost is below the rounding of the sum.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        return logits * x - logits.relu() - (1 + (-logits.abs()).exp()).log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        logits, x = ctx.saved_tensors
        of_x = gradient * logits if ctx.needs_input_grad[1] else None
        return gradient * (x - logits.sigmoid()), of_x

    @staticmethod
    def jvp(ctx: Any, of_logits: Tensor, of_x: Tensor | None) -> Tensor:  # type: ignore[override]
        logits, x = ctx.saved_tensors
        change = of_logits * (x - logits.sigmoid())
        return change if of_x is None else change + of_x * logits


class GreyBernoulli(PyroBernoulli):
    r"""A Bernoulli distribution that also scores grey pixels.

    .. math:: \log p(x) = x \log \pi + (1 - x) \log (1 - \pi), \qquad x \in [0, 1]

    On binary pixels this is the Bernoulli density; on grey ones it is the expected log-density of
    a pixel that is binarised at random, the cross-entropy loss of the papers. It is no density on
    [0, 1]: bounds are comparable between models with this likelihood only. Draws are binary.
    """

    support = constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        """Return `log p` of binary or grey values, in nats, of the shape of both together."""
        if self._validate_args:
            self._validate_sample(value)
        found: Any = _LogBernoulli.apply(*torch.broadcast_tensors(self.logits, value))
        return found


class Likelihood(nn.Module):
    """`p(x | output)`: maps a decoder's output to a distribution over observations.

    Args:
        event_dims: The number of dimensions of one observation, such as 3 for an image.
    """

    def __init__(self, event_dims: int = 3) -> None:
        super().__init__()
        self.event_dims = event_dims


class Bernoulli(Likelihood):
    """Independent pixels in [0, 1], binary or grey (`GreyBernoulli`); the outputs are logits."""

    def forward(self, logits: Tensor) -> TorchDistributionMixin:
        """Return the distribution whose event is the last `event_dims` dimensions."""
        return GreyBernoulli(logits=in_single(logits)).to_event(self.event_dims)


class Normal(Likelihood):
    """Independent normal elements with one fixed standard deviation; the outputs are means.

    Args:
        scale: The standard deviation of every element.
        event_dims: The number of dimensions of one observation.
    """

    def __init__(self, scale: float = 1.0, event_dims: int = 3) -> None:
        super().__init__(event_dims)
        if not scale > 0:
            raise ValueError(f"Normal expects a positive scale; got {scale}.")
        self.scale = scale

    def forward(self, loc: Tensor) -> TorchDistributionMixin:
        """Return the distribution whose event is the last `event_dims` dimensions."""
        return PyroNormal(in_single(loc), self.scale).to_event(self.event_dims)
