"""The bound with discrete sites summed exactly."""

from collections.abc import Callable
from typing import Any

import pyro.infer
import torch
from torch import Tensor


class TraceEnum_ELBO(pyro.infer.TraceEnum_ELBO):
    """`pyro.infer.TraceEnum_ELBO`, whose module form also works where no gradient is wanted.

    Pyro's raises for a loss without a gradient, and so a trainer could not validate with it.
    """

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss as a scalar tensor, a sum over the data plate in nats."""
        if torch.is_grad_enabled():
            return super().differentiable_loss(model, guide, *args, **kwargs)
        return torch.as_tensor(self.loss(model, guide, *args, **kwargs))
