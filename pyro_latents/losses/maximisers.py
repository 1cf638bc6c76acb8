"""Running a program with some of its sites at their maximum."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from pyro_latents.errors import UserError

Values = dict[str, Tensor]


class GradientMaximiser:
    """Climbs the log-density by L-BFGS in unconstrained space, from a draw of the program.

    It finds a local maximum. All sites without a solver of their own climb together.

    Args:
        steps: The largest number of steps.
        tolerance: The slope at which it stops.
    """

    def __init__(self, steps: int = 100, tolerance: float = 1e-7) -> None:
        self.steps = steps
        self.tolerance = tolerance

    def __call__(
        self, log_density: Callable[[Values], Tensor], start: Mapping[str, Tensor], supports: dict
    ) -> Values:
        """Return the maximisers.

        Args:
            log_density: The sum of the program's log-densities at values of the sites.
            start: Where to start, by name.
            supports: The constraints of the sites, by name.
        """
        maps = {name: biject_to(support) for name, support in supports.items()}
        free = {n: maps[n].inv(v.detach()).clone().requires_grad_() for n, v in start.items()}
        optimizer = torch.optim.LBFGS(
            list(free.values()),
            max_iter=self.steps,
            history_size=20,
            tolerance_grad=self.tolerance,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = -log_density({name: maps[name](value) for name, value in free.items()})
            grads = torch.autograd.grad(loss, list(free.values()))
            for value, grad in zip(free.values(), grads, strict=True):
                value.grad = grad
            return loss.detach()

        with torch.enable_grad():
            optimizer.step(closure)
        return {name: maps[name](value).detach() for name, value in free.items()}


class Maximised:
    """A program whose sites are held at values, and whose auxiliary sites at their maximum.

    Args:
        program: The model or the guide.
        values: The values of the sites that are held, by name.
        maxima: Maximisers that are known already.
        maximiser: For the auxiliary sites without a solver.
        weights: Factors of the log-densities that are maximised, by site.
        subtracted: Whether the objective subtracts the density of the program, as it does the
            guide's. Learned maximisers climb the density all the same.
    """

    def __init__(
        self,
        program: Callable,
        values: Values,
        maxima: Values,
        maximiser: GradientMaximiser,
        weights: Mapping[str, float],
        *,
        subtracted: bool = False,
    ) -> None:
        self.program = program
        self.values = values
        self.maxima = maxima
        self.maximiser = maximiser
        self.weights = weights
        self.subtracted = subtracted

    def get_trace(self, args: tuple, kwargs: dict) -> Trace:
        """Run the program once, or for the generic maximiser as often as it asks."""
        trace = self._run(self.maxima, args, kwargs)
        unsolved = {
            name: site
            for name, site in trace.nodes.items()
            if site["type"] == "sample"
            and site["infer"].get("maximize", self) is None
            and name not in self.maxima
        }
        if unsolved:
            found = self.maximiser(
                lambda values: self._total(self._run(self.maxima | values, args, kwargs)),
                {name: site["value"] for name, site in unsolved.items()},
                {name: site["fn"].support for name, site in unsolved.items()},
            )
            trace = self._run(self.maxima | found, args, kwargs)
        trace.compute_log_prob()
        return trace

    def _run(self, maxima: Values, args: tuple, kwargs: dict) -> Trace:
        with _Substitute(self.values, maxima, self.subtracted):
            return poutine.trace(self.program).get_trace(*args, **kwargs)

    def _total(self, trace: Trace) -> Tensor:
        trace.compute_log_prob()
        return sum(
            self.weights.get(name, 1.0) * site["log_prob_sum"]
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site_is_subsample(site)
        )


class _Substitute(Messenger):
    """Fixes sites at values, and asks the solvers of auxiliary sites."""

    def __init__(self, values: Values, maxima: Values, subtracted: bool) -> None:
        super().__init__()
        self.values = values
        self.maxima = maxima
        self.subtracted = subtracted

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            return
        name, infer = msg["name"], msg["infer"]
        if "maximize" in infer:
            value = self.maxima.get(name)
            if value is None and infer["maximize"] is not None:
                value = self._solve(name, infer)
            if value is None:
                return
            _check(name, value, msg["fn"])
        elif name in self.values:
            value = self.values[name]
        else:
            return
        msg["value"], msg["done"] = value, True

    def _solve(self, name: str, infer: dict[str, Any]) -> Tensor:
        if infer.get("maximize_with_gradient", False):
            held = {site: value.detach() for site, value in self.values.items()}
            value = infer["maximize"](held)
            # The same value with the gradient reversed: whoever raises the objective lowers a
            # density that it subtracts, and a network must raise it.
            return 2 * value.detach() - value if self.subtracted else value
        with torch.no_grad():
            return infer["maximize"](self.values)


def _check(name: str, value: Tensor, fn: Any) -> None:
    event = fn.event_shape
    if value.shape[value.dim() - len(event) :] != event:
        raise UserError(
            f"the maximiser of site {name!r} must have values of shape {tuple(event)} in its last "
            f"dimensions; got {tuple(value.shape)}."
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise UserError(f"the maximiser of site {name!r} is not finite.")
