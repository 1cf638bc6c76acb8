"""The common ground of this package's objectives."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import torch_item
from pyro.poutine import Trace
from torch import Tensor


class DifferentiableELBO(ELBO):
    """An ELBO whose every face follows from its ``differentiable_loss``.

    Pyro asks an objective for four methods: ``differentiable_loss`` (the module form
    ``loss(model, guide)``, as used by the trainer and by Lightning), ``loss_and_grads``
    (``SVI.step``), ``loss`` (``SVI.evaluate_loss``) and ``_get_trace``. Here a subclass writes
    the first one only. All of them are sums over the data plate, in nats.

    Implementing an objective:
        - draw traces with ``self._get_traces(model, guide, args, kwargs)``, which yields one pair
          a particle, or one pair with a leading dimension when particles are vectorised;
        - read sites by name and use ``log_prob_sum``, which is already scaled and masked;
        - return a scalar tensor, averaged over ``self.num_particles``.
    """

    @abstractmethod
    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss as a scalar tensor through which gradients flow, in nats."""

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The loss as a number, in nats, without a gradient."""
        with torch.no_grad():
            return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The loss as a number, in nats; its gradient is added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return torch_item(loss)

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
