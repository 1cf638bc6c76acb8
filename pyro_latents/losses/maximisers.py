"""Running a program with some of its sites at their maximum."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_latents.errors import UserError
from pyro_latents.programs import random_sites

Values = dict[str, Tensor]

# Where a site keeps what its maximiser has to learn.
LOSS = "_maximize_loss"
# Of the generic maximiser.
MOST_STEPS, LEAST_SLOPE = 100, 1e-7


def climb(
    log_density: Callable[[Values], Tensor],
    start: Mapping[str, Tensor],
    supports: Mapping[str, Any],
) -> Values:
    """Climb a log-density by L-BFGS in unconstrained space, to a local maximum.

    Args:
        log_density: The sum of a program's log-densities at values of sites.
        start: Where to start, by the sites' names.
        supports: The constraints of the sites, by name.

    Returns:
        The maximisers; all sites have climbed together.
    """
    maps = {name: biject_to(support) for name, support in supports.items()}
    free = {n: maps[n].inv(v.detach()).clone().requires_grad_() for n, v in start.items()}
    optimizer = torch.optim.LBFGS(
        list(free.values()),
        max_iter=MOST_STEPS,
        history_size=20,
        tolerance_grad=LEAST_SLOPE,
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
        weights: Factors of the log-densities that are maximised, by site.
    """

    def __init__(
        self,
        program: Callable,
        values: Values,
        maxima: Values,
        weights: Mapping[str, float],
    ) -> None:
        self.program = program
        self.values = values
        self.maxima = maxima
        self.weights = weights

    def get_trace(self, args: tuple, kwargs: dict) -> Trace:
        """Run the program once, or for the generic maximiser as often as it asks."""
        trace, unsolved = self._run(self.maxima, args, kwargs)
        if unsolved:
            nodes: Any = trace.nodes
            found = climb(
                lambda values: self._total(self._run(self.maxima | values, args, kwargs)[0]),
                {name: nodes[name]["value"] for name in unsolved},
                {name: nodes[name]["fn"].support for name in unsolved},
            )
            trace, _ = self._run(self.maxima | found, args, kwargs)
        trace.compute_log_prob()
        return trace

    def _run(self, maxima: Values, args: tuple, kwargs: dict) -> tuple[Trace, list[str]]:
        solved = _Solved(self.values, maxima)
        with solved:
            trace = poutine.trace(self.program).get_trace(*args, **kwargs)
        solved.check_used(trace)
        return trace, solved.unsolved

    def _total(self, trace: Trace) -> Tensor:
        trace.compute_log_prob()
        terms = [self.weights.get(n, 1.0) * s["log_prob_sum"] for n, s in random_sites(trace)]
        return torch.stack(terms).sum()


class _Solved(Messenger):
    """Fixes sites at values, and asks the solvers of auxiliary sites, in one run of a program."""

    def __init__(self, values: Values, maxima: Values) -> None:
        super().__init__()
        self.values = values
        self.maxima = maxima
        # Sites that are left to the generic maximiser.
        self.unsolved: list[str] = []
        # Of solvers that answer for several sites: each is asked once in a run.
        self._answers: dict[Hashable, Values] = {}

    def check_used(self, trace: Trace) -> None:
        """Raise if a solver answered for something that does not name it."""
        nodes: Any = trace.nodes
        for solver, answers in self._answers.items():
            for name in answers:
                if name not in nodes or nodes[name]["infer"].get("maximize") != solver:
                    raise UserError(
                        f"a maximiser answers for {name!r}, which is no site that names it: mark "
                        'that site with infer={"maximize": solver}, the same one.'
                    )

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            return
        name, infer = msg["name"], msg["infer"]
        if "maximize" in infer:
            value, known = self.maxima.get(name), name in self.maxima
            if not known and infer["maximize"] is not None:
                value = self._solve(name, infer["maximize"])
            if value is None:
                self.unsolved.append(name)
                return
            _check(name, value, msg["fn"])
            if not known and "maximize_loss" in infer:
                held = {site: held.detach() for site, held in self.values.items()}
                msg["infer"] = {**infer, LOSS: infer["maximize_loss"](held, value)}
        elif name in self.values:
            value = self.values[name]
        else:
            return
        msg["value"], msg["done"] = value, True

    def _solve(self, name: str, solver: Callable) -> Tensor:
        if solver not in self._answers:
            with torch.no_grad():
                answer = solver(self.values)
            if isinstance(answer, Tensor):
                return answer
            self._answers[solver] = dict(answer)
        answers = self._answers[solver]
        if name not in answers:
            raise UserError(
                f"the maximiser of site {name!r} answers for {sorted(answers)} and not for it."
            )
        return answers[name]


def _check(name: str, value: Tensor, fn: Any) -> None:
    event = fn.event_shape
    if value.shape[value.dim() - len(event) :] != event:
        raise UserError(
            f"the maximiser of site {name!r} must have values of shape {tuple(event)} in its last "
            f"dimensions; got {tuple(value.shape)}."
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise UserError(f"the maximiser of site {name!r} is not finite.")
