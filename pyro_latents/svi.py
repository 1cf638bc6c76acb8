"""Pyro's SVI, for module-local parameters too."""

from typing import Any

import pyro
from pyro import poutine
from pyro.infer.util import torch_item, zero_grads
from torch import nn

from pyro_latents.parameters import local_parameters


class SVI(pyro.infer.SVI):
    """`pyro.infer.SVI` whose parameters are those of the given model and guide, and of no other.

    The difference from its parent: two models of one class, or two guides of one model, train
    side by side in one process. Parent and child take the same arguments and give the same losses.

    Example:
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())  # doctest: +SKIP
    """

    def step(self, *args: Any, **kwargs: Any) -> float:
        """Take one gradient step and return the loss, a sum over the data plate, in nats."""
        with local_parameters(self.model, self.guide):
            with poutine.trace(param_only=True) as captured:
                loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
            parameters = set()
            for site in captured.trace.nodes.values():
                value = site["value"]
                unconstrained = value if isinstance(value, nn.Parameter) else value.unconstrained()
                parameters.add(unconstrained)
            self.optim(parameters)
            zero_grads(parameters)
        return torch_item(loss)

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """Return the loss without a gradient step, in nats."""
        with local_parameters(self.model, self.guide):
            return super().evaluate_loss(*args, **kwargs)
