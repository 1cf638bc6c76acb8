"""The parameters and optimisers of a training, and the steps that change them.

Everything that a step does is a function of its number: the random state, the phase, the weights
and the learning rates, and whether it is run by the programs or by a graph captured from them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_latents.data.batches import mixed_seed
from pyro_latents.training.hardware import together
from pyro_latents.training.plan import Phase, Plan, Trial
from pyro_latents.training.step import CAPTURED_FROM, Objective, seed_draws

T = TypeVar("T")
# What the random state of milestones is made of, beside the seed.
MILESTONE = -2


class Steps:
    """What steps change, on the devices of a training.

    Args:
        fabric: The devices.
        objective: The loss with model and guide, on the device of this rank.
        plan: What each step does.
        epoch_length: Steps in an epoch.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        eager: Whether all steps are run by the programs.

    Attributes:
        last: The number of steps that the training is to have, for rates that fall to its end.
        reasons: Why steps of a phase are not captured, by its name, where they are not.
    """

    def __init__(
        self,
        fabric: Fabric,
        objective: Objective,
        plan: Plan,
        epoch_length: int,
        *,
        gradient_clip: float = 0.0,
        eager: bool = False,
    ) -> None:
        self.fabric, self.objective, self.plan = fabric, objective, plan
        self.epoch_length, self.gradient_clip, self.eager = epoch_length, gradient_clip, eager
        self.last = 0
        self.reasons: dict[str, str] = {}
        self.module: nn.Module = fabric.setup_module(objective)
        self.optimizers = {
            name: _with_tensor_rates(optimizer, fabric.device)
            for name, optimizer in plan.build_optimizers().items()
        }
        self._steppers: dict[str, Any] = {
            name: fabric.setup_optimizers(optimizer) for name, optimizer in self.optimizers.items()
        }
        tried = {phase.trial.optimizer for phase in plan.phases.values() if phase.trial}
        # The rates of tried steps follow from their success.
        self._scheduled = [name for name in self.optimizers if name not in tried]

    @property
    def rate(self) -> float:
        """The learning rate of the first optimiser."""
        return float(next(iter(self.optimizers.values())).param_groups[0]["lr"])

    def take(self, step: int, batch: tuple[Any, ...]) -> Tensor:
        """Take a step and return its loss, in nats per data point, on its device."""
        batch, phase = self.converted(batch), self.begin(step)
        if self._captures(step) and self._is_one_graph(phase):
            with self.fabric.strategy.precision.forward_context():
                loss = self.objective.step(_Together(self, phase), *batch)
        else:
            loss = self._by_parts(phase, batch)
        if self.objective.reason is not None:
            self.reasons.setdefault(self.plan.phase_of(step), self.objective.reason)
        return loss

    def _by_parts(self, phase: Phase, batch: tuple[Any, ...]) -> Tensor:
        """Take a step whose loss, gradient and update are apart."""
        terms = self.terms(batch)
        loss = sum_of(terms.values()) / len(batch[0])
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self.fabric.backward(loss)
        # First, so that what the others change does not decide about it.
        if phase.trial is not None:
            self._try(phase.trial, terms, batch)
        self._update(phase)
        return loss.detach()

    def begin(self, step: int) -> Phase:
        """Set what a step reads, and return its phase."""
        plan = self.plan
        phase = plan.phases[plan.phase_of(step)]
        self.objective.phase = phase
        if step in plan.milestones:
            seed_draws(mixed_seed(self.objective.seed, MILESTONE, step))
            with torch.no_grad():
                plan.milestones[step]()
            # What is computed alike on every rank may still differ in its last digits.
            self.objective.load_state_dict(self.fabric.broadcast(self.objective.state_dict()))
        self.set_weights(step / self.epoch_length)
        for name in self._scheduled:
            factor = plan.schedule(step, self.epoch_length, self.last)
            factor *= plan.rates[name](step) if name in plan.rates else 1.0
            for group in self.optimizers[name].param_groups:
                group["lr"].fill_(factor * group["first_rate"])
        self.objective.seeds = (step, self.fabric.global_rank)
        self.objective.capturing = self._captures(step) and not self._is_one_graph(phase)
        return phase

    def set_weights(self, epochs: float | None) -> None:
        """Set the weights of the plan to those of a time in epochs, or all to one."""
        for weight in self.plan.weights:
            weight.value.fill_(1.0 if epochs is None else weight.at(epochs))

    def terms(self, batch: tuple[Any, ...]) -> dict[str, Tensor]:
        """Return the terms of the loss of a batch, sums over it, for the phase that began."""
        compute = partial(self.module, *batch)
        with self._format():
            return self.together(compute)

    def together(self, compute: Callable[[], T]) -> T:
        """Compute something on every rank, or nowhere."""
        alone = self.fabric.world_size == 1
        return compute() if alone else together(compute, self.fabric.device)

    def converted(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """The batch in the number format of the training."""
        return self.fabric.strategy.precision.convert_input(batch)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all ranks."""
        mean = self.fabric.all_reduce(value, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def state(self) -> dict[str, Any]:
        """What a checkpoint has of the parameters and optimisers."""
        return {
            "parameters": self.objective.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`."""
        self.objective.load_state_dict(state["parameters"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))
        self.objective.forget()

    def _format(self) -> AbstractContextManager[Any]:
        precision = self.fabric.strategy.precision
        # Fabric rounds what a module returns to the default number format.
        return precision.forward_context() if precision.precision == "64-true" else nullcontext()

    def _captures(self, step: int) -> bool:
        return not self.eager and step >= CAPTURED_FROM

    def _is_one_graph(self, phase: Phase) -> bool:
        """Whether a captured step is one graph: alone, not tried, and without a scaled loss."""
        scaled = getattr(self.fabric.strategy.precision, "scaler", None) is not None
        return self.fabric.world_size == 1 and phase.trial is None and not scaled

    def _update(self, phase: Phase) -> None:
        for name in phase.optimizers:
            if phase.trial is not None and name == phase.trial.optimizer:
                continue
            if self.gradient_clip:
                self.fabric.clip_gradients(
                    self.module,
                    self._steppers[name],
                    max_norm=self.gradient_clip,
                    error_if_nonfinite=False,
                )
            self._steppers[name].step()

    def _try(self, trial: Trial, terms: dict[str, Tensor], batch: tuple[Any, ...]) -> None:
        """Take a step back unless it improved its terms; the learning rate follows."""
        optimizer = self.optimizers[trial.optimizer]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        self._steppers[trial.optimizer].step()
        value = sum_of(terms[name].detach() for name in trial.terms)
        with torch.no_grad():
            new = self._value_now(trial, batch).to(value)
            # Written so that a value that is not a number is a rejection.
            accepted = bool(self.mean(new) <= self.mean(value))
            if not accepted:
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
        for group in optimizer.param_groups:
            rate = group["lr"].div_ if accepted else group["lr"].mul_
            rate(trial.factor).clamp_(max=trial.largest)

    def _value_now(self, trial: Trial, batch: tuple[Any, ...]) -> Tensor:
        try:
            with self.fabric.autocast():
                terms = self.objective.terms_at(*batch)
        except ValueError:
            # Parameters that overflow fail the validation of a distribution.
            return torch.tensor(torch.nan)
        return sum_of(terms[name] for name in trial.terms)


class _Together:
    """The optimisers of a phase, as one that clips and steps them in turn."""

    def __init__(self, steps: Steps, phase: Phase) -> None:
        self._update = partial(steps._update, phase)
        self._optimizers = [steps.optimizers[name] for name in phase.optimizers]

    @property
    def param_groups(self) -> Sequence[Mapping[str, Any]]:
        """Those of all."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> Mapping[Any, Mapping[str, Any]]:
        """That of all; of none as long as one of them has none."""
        states = [optimizer.state for optimizer in self._optimizers]
        return dict(chain.from_iterable(s.items() for s in states)) if all(states) else {}

    def step(self) -> None:
        """Clip the gradients and change the parameters."""
        self._update()


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of the terms of a loss."""
    found: Any = sum(terms)
    return found


def _with_tensor_rates(optimizer: Optimizer, device: torch.device) -> Optimizer:
    """Make learning rates tensors, so that a captured step sees them change."""
    # Fused kernels on an accelerator read single precision; elsewhere no digit shall be lost.
    dtype = torch.float64 if device.type == "cpu" else torch.float32
    for group in optimizer.param_groups:
        group["first_rate"] = float(group["lr"])
        group["lr"] = torch.tensor(group["first_rate"], dtype=dtype, device=device)
    return optimizer
