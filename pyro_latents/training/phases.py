"""Training in phases, each with its own objective, parameters and steps.

A step of a phase may be tried: it is taken back unless a part of the objective, evaluated again
at the same draws, has not grown, and the learning rate follows (Connor et al., 2020, appendix B).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_latents.data.batches import mixed_seed
from pyro_latents.errors import UserError
from pyro_latents.parameters import local_parameters
from pyro_latents.training.history import batches_done
from pyro_latents.training.ranks import together
from pyro_latents.training.svi_module import CHECKED_STEPS, Batch, SVIModule, seed_draws

MILESTONE = -2

OptimizersFactory = Callable[[nn.Module], Mapping[str, Optimizer]]


class TriedLoss(Protocol):
    """An objective that can be evaluated again at the draws of an earlier evaluation."""

    def hold(self, model: Any, guide: Any, *args: Any) -> tuple[dict[str, Tensor], Any]:
        """Return named terms that add to the loss, and what was drawn."""
        ...

    def terms_at(self, held: Any, model: Any, guide: Any, *args: Any) -> dict[str, Tensor]:
        """Return the terms at these draws, with the parameters of now."""
        ...


@dataclass(frozen=True)
class Trial:
    """When a step is kept, and what follows for the learning rate.

    Args:
        terms: The terms of the objective whose sum must not grow.
        largest: The largest learning rate.
        smallest: The smallest learning rate.
        factor: What the learning rate is multiplied by after a rejected step, and divided by
            after an accepted one.
    """

    terms: Sequence[str]
    largest: float
    smallest: float = 0.0
    factor: float = 0.99


@dataclass(frozen=True)
class Phase:
    """What one kind of step does.

    Args:
        loss: The objective.
        optimizers: The names of the optimisers that step; others keep their parameters as
            they are.
        tried: The optimiser among them whose step is tried, and how; None to take every step.
        prepare: Called with model and guide before the step, to set their modes.
    """

    loss: ELBO
    optimizers: Sequence[str]
    tried: tuple[str, Trial] | None = None
    prepare: Callable[[nn.Module, nn.Module], None] = field(default=lambda model, guide: None)


class PhasedModule(SVIModule):
    """SVI with a phase for each step.

    Each batch counts as one step, whatever its phase. The phase, the random state and the factor
    of the learning rates are functions of the step alone, and adapted learning rates are a part
    of the optimisers' state: a resumed run goes on as if it had not stopped.

    Args:
        model: The generative model.
        guide: Its guide.
        elbo: The objective of the whole, which validation reports.
        phase_of: The phase of a step, counted from 0.
        build_optimizers: Returns the optimisers by name.
        rate_of: Factors of learning rates at a step, by the optimiser's name.
        milestones: What is called before a step, its phase prepared: to set what depends on the
            data.
        seed: Of the draws of model and guide.
    """

    steps_use_all_parameters = False

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        elbo: ELBO,
        *,
        phase_of: Callable[[int], Phase],
        build_optimizers: OptimizersFactory,
        rate_of: Callable[[int], Mapping[str, float]] = lambda step: {},
        milestones: Mapping[int, Callable[[], None]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, guide, elbo, _unused, seed=seed)
        self.automatic_optimization = False
        self._phase_of = phase_of
        self._build_optimizers = build_optimizers
        self._rate_of = rate_of
        self._milestones = dict(milestones or {})
        self._names: list[str] = []

    def configure_optimizers(self) -> list[Optimizer]:
        """Hand all optimisers to Lightning, which saves their state."""
        optimizers = self._build_optimizers(self.elbo)
        self._names = list(optimizers)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["initial_rate"] = group["lr"]
        return list(optimizers.values())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Take the step of the phase; return the loss in nats per data point."""
        step = batches_done(self.trainer)
        phase = self._phase_of(step)
        # First, since a milestone belongs to the phase that it begins.
        phase.prepare(self.elbo.model, self.elbo.guide)
        if step in self._milestones:
            seed_draws(mixed_seed(self.seed, MILESTONE, step))
            with torch.no_grad():
                self._milestones[step]()
            # What is computed alike on every rank may still differ in its last digits.
            self.load_state_dict(self.trainer.strategy.broadcast(self.state_dict()))
        optimizers = dict(zip(self._names, self.trainer.optimizers, strict=True))
        for name, factor in self._rate_of(step).items():
            for group in optimizers[name].param_groups:
                group["lr"] = factor * group["initial_rate"]
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        terms, held = together(lambda: self._evaluate(phase, batch, step), self.device)
        loss = sum(terms.values()) / len(batch[0])
        self.manual_backward(loss)
        # First, so that what the others change does not decide about it.
        tried = None
        if phase.tried is not None:
            tried, trial = phase.tried
            self._try(phase, trial, optimizers[tried], terms, held, batch)
        for name in phase.optimizers:
            if name != tried:
                optimizers[name].step()
        # Lightning counts the steps of its own wrappers, and a batch is one step.
        self._count_step()
        return {"loss": loss.detach()}

    def _evaluate(self, phase: Phase, batch: Batch, step: int) -> tuple[dict[str, Tensor], Any]:
        model, guide, held = self.elbo.model, self.elbo.guide, None
        seed_draws(mixed_seed(self.seed, step, self.global_rank))
        self._steps += 1
        checked = pyro.validation_enabled(self._steps <= CHECKED_STEPS)
        try:
            with local_parameters(model, guide), checked:
                if phase.tried is not None:
                    terms, held = phase.loss.hold(model, guide, *batch)
                else:
                    terms = {"loss": phase.loss.differentiable_loss(model, guide, *batch)}
        except ValueError as error:
            site = self._first_non_finite_site(batch, step, self.global_rank)
            if site is None:
                raise
            raise UserError(self._message("not finite", site)) from error
        for name, term in terms.items():
            if not torch.isfinite(term):
                site = self._first_non_finite_site(batch, step, self.global_rank)
                site = site or f"every site is finite on its own, the {name} is not"
                raise UserError(self._message(str(term.item()), site))
        return terms, held

    def _try(
        self,
        phase: Phase,
        trial: Trial,
        optimizer: Optimizer,
        terms: dict[str, Tensor],
        held: Any,
        batch: Batch,
    ) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        optimizer.step()
        value = sum(terms[name].detach() for name in trial.terms)
        with torch.no_grad():
            new_value = self._value_now(phase, trial, held, batch).to(value)
            # Written so that a value that is not a number is a rejection.
            accepted = bool(self._mean_over_ranks(new_value) <= self._mean_over_ranks(value))
            if not accepted:
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
        for group in optimizer.param_groups:
            rate = group["lr"] / trial.factor if accepted else group["lr"] * trial.factor
            group["lr"] = min(max(rate, trial.smallest), trial.largest)

    def _value_now(self, phase: Phase, trial: Trial, held: Any, batch: Batch) -> Tensor:
        model, guide = self.elbo.model, self.elbo.guide
        try:
            with local_parameters(model, guide), pyro.validation_enabled(False):
                terms = phase.loss.terms_at(held, model, guide, *batch)
        except ValueError:
            # Parameters that overflow fail the validation of a distribution.
            return torch.tensor(torch.nan)
        return sum(terms[name] for name in trial.terms)

    def _mean_over_ranks(self, value: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(value, reduce_op="mean")

    def _count_step(self) -> None:
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()


def _unused(module: nn.Module) -> NoReturn:
    raise NotImplementedError("PhasedModule has several optimisers")
