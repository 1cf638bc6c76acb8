"""Programs: models and guides as they are run, and the parameters and centres that they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Distribution
from pyro.infer.util import torch_item, zero_grads
from pyro.nn import PyroModule
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

Site = Mapping[str, Any]


def modules_of(*programs: object) -> list[nn.Module]:
    """The modules among models and guides; functions have no parameters and no mode."""
    return [program for program in programs if isinstance(program, nn.Module)]


@contextmanager
def local_parameters(*modules: object) -> Iterator[None]:
    """Run models and guides with the parameters that they hold themselves.

    In Pyro's default mode parameters live in a global store under names such as
    ``decoder$$$weight``: a second model of the same class in one process reads those of the first
    and silently does not learn. Everything in this package that trains or evaluates runs inside
    this context instead; Pyro's setting is put back at the end.

    Args:
        *modules: The models and guides that run in the context. Pyro prepares a module for this
            mode only if it was built in it; those that were not are prepared here. Functions
            pass.

    Example:
        >>> with local_parameters(model, guide):  # doctest: +SKIP
        ...     Trace_ELBO()(model, guide)(x).backward()
    """
    for module in modules:
        for child in module.modules() if isinstance(module, nn.Module) else ():
            if isinstance(child, PyroModule) and not hasattr(child._pyro_context, "param_state"):
                child._pyro_context.param_state = {"params": {}, "constraints": {}}
    with pyro.settings.context(module_local_params=True):
        yield


@contextmanager
def evaluation_mode(*programs: object) -> Iterator[None]:
    """Run models and guides in evaluation mode, and put each back into the mode it was in.

    Args:
        *programs: Models and guides; functions pass.
    """
    modules = modules_of(*programs)
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.train(mode)


def paired_traces(model: Callable, guide: Callable, *args: Any) -> tuple[Trace, Trace]:
    """Run the guide, then the model at the guide's values; both have their log-densities.

    Returns:
        The model's trace and the guide's.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
    for trace in (model_trace, guide_trace):
        trace.compute_log_prob()
    return model_trace, guide_trace


def random_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The sample sites of a trace by name, without the subsampling sites of its plates."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            yield name, site


def latent_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The random sites that are neither observed nor auxiliary."""
    for name, site in random_sites(trace):
        if not site["is_observed"] and not site["infer"].get("is_auxiliary"):
            yield name, site


def plate_nesting(*traces: Trace) -> int:
    """How many dimensions the plates of these runs take, counted from the right."""
    return max(
        (
            -frame.dim
            for trace in traces
            for _, site in random_sites(trace)
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        ),
        default=0,
    )


def vectorised(program: Callable, count: int, nesting: int, name: str = "_draws") -> Callable:
    """Return a program that runs `count` times at once, in a dimension left of its plates.

    Args:
        program: A model or guide.
        count: The number of runs.
        nesting: The dimensions that are taken, as `plate_nesting` counts them.
        name: Of the plate; one within another needs a name of its own.
    """
    return pyro.plate(name, count, dim=-nesting - 1)(program)


class Centred(Messenger):
    """Gives each latent site the centre of its distribution in the place of a draw."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        msg["value"] = centre(msg["fn"])
        msg["done"] = True


def centre(distribution: Distribution) -> Tensor:
    """Return the mean, or the mode of a discrete distribution.

    Of one that knows neither, as flows do not, it is a draw.
    """
    known: Any = distribution  # Pyro's class declares none of what follows.
    if known.support is not None and known.support.is_discrete:
        return known.mode
    try:
        return known.mean
    except NotImplementedError:
        return known.rsample()


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
            sites = captured.trace.nodes.values()
            # A dictionary keeps the order of the sites, and each parameter once.
            parameters = {unconstrained(site["value"]): None for site in sites}
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


def unconstrained(value: Any) -> nn.Parameter:
    """Return the parameter behind the value of a parameter's site."""
    return value if isinstance(value, nn.Parameter) else value.unconstrained()
