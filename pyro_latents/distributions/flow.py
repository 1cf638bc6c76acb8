"""Zuko's normalizing flows as Pyro distributions that work everywhere in Pyro."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyro_latents.nets.precision import uncast


def import_zuko() -> ModuleType:
    """Import zuko, keeping torch's validation setting, which zuko switches off at import."""
    validate = Distribution._validate_args
    try:
        import zuko
    finally:
        Distribution.set_default_validate_args(validate)
    return zuko


class FlowDistribution(TorchDistribution):
    """A reparameterised Pyro distribution around a `zuko` normalizing flow.

    `pyro.contrib.zuko.ZukoToPyro` has no `sample`, `rsample` or `support`, and its `expand`
    returns another class: it trains, but `Predictive` fails with it. This one has them. The
    density of the latest draw is kept: a flow that is fast to draw from is slow to score with.

    Args:
        flow: A `zuko` distribution with `rsample_and_log_prob`, of event shape `(dim,)`.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, flow: Any) -> None:
        self.flow = flow
        self._draw: tuple[Tensor, Tensor] | None = None
        super().__init__(flow.batch_shape, flow.event_shape, validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw with a gradient, of shape `*sample_shape *batch dim`."""
        # The transforms are the density: mixed precision leaves them as they are.
        with uncast(self.flow.base.mean):
            value, log_prob = self.flow.rsample_and_log_prob(torch.Size(sample_shape))
        self._draw = (value, log_prob)
        return value

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw without a gradient."""
        with torch.no_grad(), uncast(self.flow.base.mean):
            return self.flow.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density in nats; that of the latest draw is not computed again."""
        if self._draw is not None and value is self._draw[0]:
            return self._draw[1]
        with uncast(self.flow.base.mean):
            return self.flow.log_prob(value)

    def expand(
        self, batch_shape: Sequence[int], _instance: FlowDistribution | None = None
    ) -> FlowDistribution:
        """Return the same flow over a larger batch, of the same class."""
        return FlowDistribution(self.flow.expand(batch_shape))
