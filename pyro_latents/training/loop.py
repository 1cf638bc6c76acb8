"""From parts to a trained run folder: one loop for every plan, on Lightning Fabric.

Everything that a step does is a function of its number: the batch, the random state, the phase,
the weights and the learning rates. So a run that is resumed from a checkpoint goes on as if it had
not stopped, whatever it stopped for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_latents.data.batches import Batches, mixed_seed
from pyro_latents.errors import UserError
from pyro_latents.training.checkpoint import (
    BEST,
    CHECKPOINT,
    HISTORY,
    read_checkpoint,
    write_checkpoint,
)
from pyro_latents.training.hardware import build_fabric, is_first_rank, one_voice, quiet, together
from pyro_latents.training.history import Progress
from pyro_latents.training.options import FitOptions
from pyro_latents.training.plan import Phase, Plan, Trial
from pyro_latents.training.report import Report
from pyro_latents.training.step import Objective, seed_draws

T = TypeVar("T")

# Steps between two checkpoints at least, so that saving stays a small part of short epochs.
MIN_STEPS_BETWEEN_CHECKPOINTS = 100
# Steps between two looks at whether all losses were finite: a look waits for the device.
WATCHED_EVERY = 50
# What the random state of milestones and of validation is made of, beside the seed.
MILESTONE, VALIDATION = -2, -1


class Trainable(Protocol):
    """The parts of a training, as `pyro_latents.stories.story.Parts` has them."""

    seed: int

    @property
    def model(self) -> Any:
        """The generative model."""
        ...

    @property
    def guide(self) -> Any:
        """The guide."""
        ...

    @property
    def loss(self) -> Any:
        """The objective."""
        ...

    @property
    def plan(self) -> Plan:
        """What each step does."""
        ...

    def loader(self, split: str, *, rank: int = 0, world_size: int = 1) -> Batches | None:
        """Return the batches of a split for a rank, None if it is empty."""
        ...

    def to(self, device: torch.device | str) -> Any:
        """Move programs and data."""
        ...


def fit(
    parts: Trainable,
    folder: Path,
    options: FitOptions,
    *,
    resume: bool = False,
    begin: Callable[[], object] = lambda: None,
    gradient_clip: float = 0.0,
    patience: int = 0,
) -> Path:
    """Train parts and leave their checkpoint and history in a folder.

    On several devices, each rank calls this; the first one writes, to its own folder.

    Args:
        parts: What to train.
        folder: The run folder.
        options: How long and on what.
        resume: Whether to go on from the checkpoint in the folder.
        begin: Called by the first rank before its first step, if there are any to take: what
            there was fits, and is about to change.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        patience: Epochs without a better validation loss before training stops; 0 for never.

    Returns:
        The folder that was written.

    Raises:
        UserError: if a loss is not finite, or a checkpoint to resume from is damaged. Of several
            ranks only the first raises it; the others leave.
    """
    fabric = check_hardware(parts, options, folder)
    checkpoint = folder / CHECKPOINT if resume and (folder / CHECKPOINT).exists() else None
    with quiet(), one_voice(fabric, is_first_rank(options.ranks)):
        return fabric.launch(
            _train,  # type: ignore[arg-type]
            parts,
            folder,
            options,
            checkpoint,
            begin,
            gradient_clip=gradient_clip,
            patience=patience,
        )


def check_hardware(parts: Trainable, options: FitOptions, folder: Path) -> Fabric:
    """See that there are such devices, and return them.

    Raises:
        UserError: if not.
    """
    all_parameters = parts.plan.steps_use_all_parameters
    return build_fabric(options, all_parameters=all_parameters, folder=folder)


def _train(
    fabric: Fabric,
    parts: Trainable,
    folder: Path,
    options: FitOptions,
    checkpoint: Path | None,
    begin: Callable[[], object],
    **limits: Any,
) -> Path:
    loop = Loop(fabric, parts, folder, **limits)
    if checkpoint is not None:
        loop.restore(read_checkpoint(checkpoint, fabric.device))
    done = loop.is_done(options)
    if fabric.is_global_zero and not done:
        begin()
    if not done or not loop.progress.kept:
        loop.run(options)
    return fabric.broadcast(folder)


class Loop:
    """The state of a training, and its steps.

    Args:
        fabric: The devices.
        parts: What to train; moved to the device of this rank.
        folder: The run folder.
        gradient_clip: As in `fit`.
        patience: As in `fit`.
    """

    def __init__(
        self,
        fabric: Fabric,
        parts: Trainable,
        folder: Path,
        *,
        gradient_clip: float = 0.0,
        patience: int = 0,
    ) -> None:
        self.fabric, self.folder, self.plan = fabric, folder, parts.plan
        self.gradient_clip, self.patience = gradient_clip, patience
        parts.to(fabric.device)
        ranks = {"rank": fabric.global_rank, "world_size": fabric.world_size}
        train = parts.loader("train", **ranks)
        assert train is not None
        self.batches, self.validation = train, parts.loader("validation", **ranks)
        self.epoch_length = len(train)
        self.objective = Objective(parts.model, parts.guide, parts.loss, parts.seed)
        self.module: nn.Module = fabric.setup_module(self.objective)
        self.optimizers = {
            name: _with_tensor_rates(optimizer, fabric.device)
            for name, optimizer in self.plan.build_optimizers().items()
        }
        self._steppers: dict[str, Any] = {
            name: fabric.setup_optimizers(optimizer) for name, optimizer in self.optimizers.items()
        }
        tried = {phase.trial.optimizer for phase in self.plan.phases.values() if phase.trial}
        # The rates of tried steps follow from their success.
        self._scheduled = [name for name in self.optimizers if name not in tried]
        self.progress = Progress()
        self._finite = torch.ones((), dtype=torch.bool, device=fabric.device)
        self._seen: tuple[int, dict[str, Any]] = (0, {})
        self._saved = 0

    def is_done(self, options: FitOptions) -> bool:
        """Whether there are no more steps to take."""
        last = options.last_step(self.epoch_length)
        return self.progress.step >= last or self._has_stopped()

    def run(self, options: FitOptions) -> None:
        """Train until the last step of the options, or until validation no longer improves."""
        progress, last = self.progress, options.last_step(self.epoch_length)
        report = Report(
            options.progress and self.fabric.is_global_zero, done=progress.step, steps=last
        )
        try:
            self._look()
            while progress.step < last and not self._has_stopped():
                self._epoch(last, report)
        finally:
            report.close()
        self._set_weights(None)
        self.progress.kept = True
        self._keep(CHECKPOINT)

    def restore(self, content: dict[str, Any]) -> None:
        """Take up the state of a checkpoint.

        Raises:
            UserError: if it is of other parts.
        """
        try:
            self._load(content)
            self.progress = Progress(**content["progress"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the checkpoint in {self.folder} does not fit its recipe: it was written by "
                "another version of it; train the run anew."
            ) from error
        self._saved = self.progress.step

    def _epoch(self, last: int, report: Report) -> None:
        """Take the steps of an epoch, or what there is left of it."""
        progress = self.progress
        epoch, start = divmod(progress.step, self.epoch_length)
        progress.begin_epoch(cut=start > 0)
        self.batches.set_epoch(epoch, start)
        for batch in self.batches:
            loss = self.step(batch)
            progress.count(loss)
            report.step(progress.step, loss)
            if progress.step % WATCHED_EVERY == 0:
                self._look()
            if progress.step == last:
                break
        self._look()
        self._end_epoch(epoch + 1)
        report.epoch(progress.rows[-1])

    def _end_epoch(self, epoch: int) -> None:
        """Validate, write the history and save the parameters."""
        progress = self.progress
        # Kept for a resumption too, which may have another number of ranks.
        progress.total = self._mean(torch.as_tensor(progress.total))
        mean = float(progress.total) / progress.counted
        whole = progress.step == epoch * self.epoch_length
        # An epoch that is cut has no validation.
        validation = self._validate() if whole else None
        better = validation is not None and progress.improved(validation)
        rate = float(next(iter(self.optimizers.values())).param_groups[0]["lr"])
        progress.end_epoch(epoch, mean, validation, rate)
        if self.fabric.is_global_zero:
            progress.write(self.folder / HISTORY)
            for logger in self.fabric.loggers:
                row = progress.rows[-1]
                values = {name: value for name, value in row.items() if value is not None}
                logger.log_metrics(values, progress.step)
        if self.patience and better:
            self._keep(BEST)
        if progress.step - self._saved >= MIN_STEPS_BETWEEN_CHECKPOINTS:
            self._save(CHECKPOINT)

    def _has_stopped(self) -> bool:
        return 0 < self.patience <= self.progress.waited

    def step(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Take one step and return its loss, in nats per data point, on its device."""
        batch = self._converted(batch)
        phase = self._begin(self.progress.step)
        terms = self._terms(batch)
        loss = _sum(terms.values()) / len(batch[0])
        self._finite &= torch.isfinite(loss.detach())
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self.fabric.backward(loss)
        # First, so that what the others change does not decide about it.
        if phase.trial is not None:
            self._try(phase.trial, terms, batch)
        for name in phase.optimizers:
            if phase.trial is None or name != phase.trial.optimizer:
                self._clip(name)
                self._steppers[name].step()
        return loss.detach()

    def _terms(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        precision = self.fabric.strategy.precision
        # Fabric rounds what a module returns to the default number format.
        wide = precision.precision == "64-true"
        compute = partial(self.module, *batch)
        with precision.forward_context() if wide else nullcontext():
            return self._together(compute)

    def _together(self, compute: Callable[[], T]) -> T:
        alone = self.fabric.world_size == 1
        return compute() if alone else together(compute, self.fabric.device)

    def _begin(self, step: int) -> Phase:
        """Set what a step reads, and return its phase."""
        phase = self.plan.phases[self.plan.phase_of(step)]
        self.objective.phase = phase
        if step in self.plan.milestones:
            seed_draws(mixed_seed(self.objective.seed, MILESTONE, step))
            with torch.no_grad():
                self.plan.milestones[step]()
            # What is computed alike on every rank may still differ in its last digits.
            self.objective.load_state_dict(self.fabric.broadcast(self.objective.state_dict()))
        epochs = step / self.epoch_length
        self._set_weights(epochs)
        for name in self._scheduled:
            factor = 0.5 ** (epochs // self.plan.halve_every) if self.plan.halve_every else 1.0
            factor *= self.plan.rates[name](step) if name in self.plan.rates else 1.0
            for group in self.optimizers[name].param_groups:
                group["lr"].fill_(factor * group["first_rate"])
        self.objective.seeds = (step, self.fabric.global_rank)
        return phase

    def _set_weights(self, epochs: float | None) -> None:
        for weight in self.plan.weights:
            weight.value.fill_(1.0 if epochs is None else weight.at(epochs))

    def _converted(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The batch in the number format of the training."""
        return self.fabric.strategy.precision.convert_input(batch)

    def _clip(self, name: str) -> None:
        if self.gradient_clip:
            optimizer, norm = self._steppers[name], self.gradient_clip
            self.fabric.clip_gradients(
                self.module, optimizer, max_norm=norm, error_if_nonfinite=False
            )

    def _try(self, trial: Trial, terms: dict[str, Tensor], batch: tuple[Tensor, ...]) -> None:
        """Take a step back unless it improved its terms; the learning rate follows."""
        optimizer = self.optimizers[trial.optimizer]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        self._steppers[trial.optimizer].step()
        value = _sum(terms[name].detach() for name in trial.terms)
        with torch.no_grad():
            new = self._value_now(trial, batch).to(value)
            # Written so that a value that is not a number is a rejection.
            accepted = bool(self._mean(new) <= self._mean(value))
            if not accepted:
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
        for group in optimizer.param_groups:
            rate = group["lr"].div_ if accepted else group["lr"].mul_
            rate(trial.factor).clamp_(max=trial.largest)

    def _value_now(self, trial: Trial, batch: tuple[Tensor, ...]) -> Tensor:
        try:
            with self.fabric.autocast():
                terms = self.objective.terms_at(*batch)
        except ValueError:
            # Parameters that overflow fail the validation of a distribution.
            return torch.tensor(torch.nan)
        return _sum(terms[name] for name in trial.terms)

    def _mean(self, value: Tensor) -> Tensor:
        mean = self.fabric.all_reduce(value, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _validate(self) -> float | None:
        """Return the whole objective on the validation data, with the same draws each time."""
        if self.validation is None:
            return None
        self._set_weights(None)
        self.objective.phase = None
        self.objective.eval()
        total: Any = 0.0
        count = 0
        with torch.no_grad():
            for number, batch in enumerate(self.validation):
                self.objective.seeds = (VALIDATION, number, self.fabric.global_rank)
                batch = self._converted(batch)
                total = total + _sum(self._terms(batch).values())
                count += len(batch[0])
        self.objective.train()
        mean = float(self._mean(total / count))
        if not math.isfinite(mean):
            raise UserError(
                f"the validation loss is {mean} after step {self.progress.step}. "
                "Lower --learning-rate or set --gradient-clip."
            )
        return mean

    def _look(self) -> None:
        """See that all losses were finite; if not, go back and find the first that was not.

        Raises:
            UserError: if one was not; the message names the step and the site.
        """
        if bool(self._mean(self._finite.float()) < 1):
            self._together(self._replay)
        self._seen = (self.progress.step, copy.deepcopy(self._state()))

    def _replay(self) -> None:
        """Take the steps since the last look again, each loss looked at."""
        step, state = self._seen
        last, self.progress = self.progress.step, Progress(step=step)
        self._load(state)
        while self.progress.step < last:
            epoch, number = divmod(self.progress.step, self.epoch_length)
            self.batches.set_epoch(epoch)
            batch = self.batches.batch(number)
            self._begin(self.progress.step)
            terms = self.module(*self._converted(batch))
            loss = _sum(terms.values())
            if not bool(torch.isfinite(loss)):
                site = self.objective.broken_site(*batch)
                raise self.objective.not_finite(str(loss.item()), site)
            self.step(batch)
            self.progress.step += 1
        raise self.objective.not_finite("not finite", None)

    def _state(self) -> dict[str, Any]:
        return {
            "parameters": self.objective.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state["parameters"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))

    def _keep(self, name: str) -> None:
        """Save parameters that are here to stay, with what is to be left beside them."""
        if self.plan.before_keeping is not None:
            self.plan.before_keeping()
        self._save(name)

    def _save(self, name: str) -> None:
        if self.fabric.is_global_zero:
            content = {**self._state(), "progress": self.progress.as_dict()}
            write_checkpoint(self.folder / name, content)
        if name == CHECKPOINT:
            self._saved = self.progress.step


def _sum(terms: Iterable[Tensor]) -> Tensor:
    total: Any = sum(terms)
    return total


def _with_tensor_rates(optimizer: Optimizer, device: torch.device) -> Optimizer:
    """Make learning rates tensors, so that a captured step sees them change."""
    # Fused kernels on an accelerator read single precision; elsewhere no digit shall be lost.
    dtype = torch.float64 if device.type == "cpu" else torch.float32
    for group in optimizer.param_groups:
        group["first_rate"] = float(group["lr"])
        group["lr"] = torch.tensor(group["first_rate"], dtype=dtype, device=device)
    return optimizer
