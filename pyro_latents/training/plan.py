"""What a training does at each step, as data: one loop (`training.loop`) serves every plan.

A step of a phase may be tried: it is taken back unless a part of the objective, evaluated again
at the same draws, has not grown, and the learning rate follows (Connor et al., 2020, appendix B).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.optim import Adadelta, Adam, Optimizer

from pyro_latents.programs import modules_of
from pyro_latents.training.muon import Muon, matrices

Optimizers = Mapping[str, Optimizer]
# The factor of the first learning rates at a step: of it, the steps of an epoch, and those in all.
Schedule = Callable[[int, int, int], float]

# The share of a training in which falling rates first rise.
WARM_UP = 0.1


@dataclass(frozen=True)
class Trial:
    """When a step of an optimiser is kept, and what follows for its learning rate.

    The loss of the phase must be one that can be evaluated again at the same draws: it has
    ``hold`` and ``terms_at``, as `pyro_latents.losses.TraceMax_ELBO` does.

    Args:
        optimizer: The name of the optimiser, one of the phase's.
        terms: The terms of the objective whose sum must not grow.
        largest: The largest learning rate.
        factor: What the learning rate is multiplied by after a rejected step, and divided by
            after an accepted one.
    """

    optimizer: str
    terms: Sequence[str]
    largest: float
    factor: float = 0.99


@dataclass(frozen=True)
class Phase:
    """One kind of step.

    Args:
        optimizers: The names of the optimisers that step; others keep their parameters.
        loss: The objective, None for that of the parts.
        model: The program in the place of the model, None for the model.
        guide: The program in the place of the guide, None for the guide.
        trial: Which step is tried, and how; None to take every step.
    """

    optimizers: Sequence[str]
    loss: ELBO | None = None
    model: Callable[..., Any] | None = None
    guide: Callable[..., Any] | None = None
    trial: Trial | None = None


@dataclass(frozen=True)
class Weight:
    """A number in an objective that changes while it is trained.

    Args:
        at: Its value after so many epochs, a fraction within an epoch.
        value: The 0-d tensor that the objective reads, so that a captured step sees it change.
            Outside of training steps it is 1.
    """

    at: Callable[[float], float]
    value: Tensor = field(default_factory=lambda: torch.ones(()))


def halving(every: int) -> Schedule:
    """Halve the rates after so many epochs, again and again; 0 for never."""
    return lambda step, epoch, last: 0.5 ** (step // epoch // every) if every else 1.0


def falling(step: int, epoch: int, last: int) -> float:
    """Let the rates rise for a tenth of a training, and then fall to zero at its end."""
    done = (step + 1) / (last + 1)
    return min(done / WARM_UP, (1 - done) / (1 - WARM_UP))


@dataclass(frozen=True)
class Plan:
    """The whole of a training; what a step does is a function of its number and nothing else.

    Args:
        build_optimizers: Returns the optimisers by name; called when the parameters are on their
            device.
        phases: The phases by name.
        phase_of: The name of the phase of a step, counted from 0.
        weights: What is set before each step.
        schedule: The factor of all learning rates but those of tried steps.
        rates: A further factor at a step, by the name of the optimiser.
        milestones: What is done before a step, by its number: to set what depends on the data.
        before_keeping: Done before the best and the last parameters are saved: to leave what
            depends on them and on the data.
        steps_use_all_parameters: Whether every step has a gradient for each parameter. Where
            not, ranks must look for those without one, lest they wait for it.
    """

    build_optimizers: Callable[[], Optimizers]
    phases: Mapping[str, Phase] = field(default_factory=lambda: {"all": Phase(("all",))})
    phase_of: Callable[[int], str] = lambda step: "all"
    weights: Sequence[Weight] = ()
    schedule: Schedule = halving(0)
    rates: Mapping[str, Callable[[int], float]] = field(default_factory=dict)
    milestones: Mapping[int, Callable[[], None]] = field(default_factory=dict)
    before_keeping: Callable[[], None] | None = None
    steps_use_all_parameters: bool = True


def adam(*programs: Any, learning_rate: float) -> dict[str, Optimizer]:
    """Return one optimiser, ``all``, of every parameter of models and guides that has a gradient.

    A model that came from another run has none.
    """
    return {"all": _adam(_learned(programs), learning_rate)}


def muon(
    *programs: Any, learning_rate: float, matrix_learning_rate: float
) -> dict[str, Optimizer]:
    """Return Muon of the ``matrices`` of layers, and Adam of the ``others``."""
    weights = list(matrices(*modules_of(*programs)))
    apart = {id(weight) for weight in weights}
    others = [p for p in _learned(programs) if id(p) not in apart]
    return {
        "matrices": Muon(weights, lr=matrix_learning_rate),
        "others": _adam(others, learning_rate),
    }


def adadelta(*programs: Any, learning_rate: float) -> dict[str, Optimizer]:
    """Return Adadelta of every such parameter, with the decay of Zeiler (2012), not torch's."""
    return {"all": Adadelta(_learned(programs), lr=learning_rate, rho=0.95, eps=1e-6)}


def _adam(parameters: list[nn.Parameter], learning_rate: float) -> Adam:
    # The fused form is the same update and saves much of its time.
    return Adam(parameters, lr=learning_rate, fused=True)


def _learned(programs: Sequence[Any]) -> list[nn.Parameter]:
    return [p for p in nn.ModuleList(modules_of(*programs)).parameters() if p.requires_grad]
