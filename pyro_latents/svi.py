"""Pyro's SVI, for module-local parameters too."""

from collections.abc import Iterable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.util import torch_item, zero_grads
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor, nn

from pyro_latents.parameters import local_parameters


class SVI(pyro.infer.SVI):
    """`pyro.infer.SVI` whose parameters are those of the given model and guide, and of no other.

    The differences from its parent: two models of one class, or two guides of one model, train
    side by side in one process; and where all parameters share their options, one torch optimiser
    steps them together, which is faster than `pyro.optim`'s one for each. Parent and child take
    the same arguments and give the same losses.

    Raises:
        ValueError: if the optimiser's options are a function of a parameter's name.

    Example:
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())  # doctest: +SKIP
    """

    _joint: torch.optim.Optimizer | None = None

    def __init__(self, model: Any, guide: Any, optim: PyroOptim, loss: Any, **kwargs: Any) -> None:
        super().__init__(model, guide, optim, loss, **kwargs)
        if callable(self.optim.pt_optim_args):
            raise ValueError(
                "SVI with module-local parameters cannot ask for the options of a parameter by "
                "its name in the global store: give the optimiser one dictionary of options."
            )

    def step(self, *args: Any, **kwargs: Any) -> float:
        """Take one gradient step and return the loss, a sum over the data plate, in nats."""
        with local_parameters(self.model, self.guide):
            with poutine.trace(param_only=True) as captured:
                loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
            # A dictionary keeps the order of the sites, and each parameter once.
            parameters = {_unconstrained(site["value"]): None for site in _sites(captured)}
            self._update(list(parameters))
        return torch_item(loss)

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """Return the loss without a gradient step, in nats."""
        with local_parameters(self.model, self.guide):
            return super().evaluate_loss(*args, **kwargs)

    def _update(self, parameters: list[nn.Parameter]) -> None:
        if not _shares_options(self.optim):
            self.optim(parameters)
            zero_grads(parameters)
            return
        if self._joint is None:
            self._joint = self.optim.pt_optim_constructor(parameters, **self.optim.pt_optim_args)
        held = {parameter for group in self._joint.param_groups for parameter in group["params"]}
        new = [parameter for parameter in parameters if parameter not in held]
        if new:
            self._joint.add_param_group({"params": new})
        self._joint.step()
        self._joint.zero_grad()


def _shares_options(optim: PyroOptim) -> bool:
    """Whether one torch optimiser can serve all parameters: it has no schedule and no clipping."""
    return not optim.pt_clip_args and not isinstance(optim, PyroLRScheduler)


def _sites(captured: Any) -> Iterable[dict[str, Any]]:
    return captured.trace.nodes.values()


def _unconstrained(value: Tensor) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else value.unconstrained()
