"""The epochs of a training: one loop for every plan, on Lightning Fabric.

The batch of a step is a function of its number, as all else is that it does (`training.steps`). So
a run that is resumed from a checkpoint goes on as if it had not stopped, whatever it stopped for.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pyro_latents.data.batches import Batches
from pyro_latents.errors import UserError
from pyro_latents.training.checkpoint import (
    BEST,
    CHECKPOINT,
    HISTORY,
    write_checkpoint,
)
from pyro_latents.training.history import Progress
from pyro_latents.training.options import FitOptions
from pyro_latents.training.plan import Plan
from pyro_latents.training.report import Report
from pyro_latents.training.step import Objective
from pyro_latents.training.steps import Steps, sum_of

# Steps between two checkpoints at least, so that saving stays a small part of short epochs.
MIN_STEPS_BETWEEN_CHECKPOINTS = 100
# Steps between two looks at whether all losses were finite: a look waits for the device.
WATCHED_EVERY = 50
# What the random state of validation is made of, beside the seed.
VALIDATION = -1


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


class Loop:
    """The state of a training, and its epochs.

    Args:
        fabric: The devices.
        parts: What to train; moved to the device of this rank.
        folder: The run folder.
        gradient_clip: As in `fit`.
        patience: As in `fit`.
        eager: Whether no step is captured.
    """

    def __init__(
        self,
        fabric: Fabric,
        parts: Trainable,
        folder: Path,
        *,
        gradient_clip: float = 0.0,
        patience: int = 0,
        eager: bool = False,
    ) -> None:
        self.fabric, self.folder, self.plan = fabric, folder, parts.plan
        self.patience = patience
        parts.to(fabric.device)
        ranks = {"rank": fabric.global_rank, "world_size": fabric.world_size}
        train = parts.loader("train", **ranks)
        assert train is not None
        self.batches, self.validation = train, parts.loader("validation", **ranks)
        self.epoch_length = len(train)
        self.objective = Objective(parts.model, parts.guide, parts.loss, parts.seed)
        self.steps = Steps(
            fabric,
            self.objective,
            self.plan,
            self.epoch_length,
            gradient_clip=gradient_clip,
            eager=eager,
        )
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
        self.steps.last = last
        report = Report(
            options.progress and self.fabric.is_global_zero, done=progress.step, steps=last
        )
        try:
            self._look()
            while progress.step < last and not self._has_stopped():
                self._epoch(last, report)
        finally:
            report.close()
        self.steps.set_weights(None)
        self.progress.kept = True
        self._keep(CHECKPOINT)

    def restore(self, content: dict[str, Any]) -> None:
        """Take up the state of a checkpoint.

        Raises:
            UserError: if it is of other parts.
        """
        try:
            self.steps.load(content)
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
            report.uncaptured(self.steps.reasons)
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
        progress.total = self.steps.mean(torch.as_tensor(progress.total))
        mean = float(progress.total) / progress.counted
        whole = progress.step == epoch * self.epoch_length
        # An epoch that is cut has no validation.
        validation = self._validate() if whole else None
        better = validation is not None and progress.improved(validation)
        rate = self.steps.rate
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
        loss = self.steps.take(self.progress.step, batch)
        self._finite &= torch.isfinite(loss)
        return loss

    def _validate(self) -> float | None:
        """Return the whole objective on the validation data, with the same draws each time."""
        if self.validation is None:
            return None
        self.steps.set_weights(None)
        self.objective.phase = None
        self.objective.eval()
        total: Any = 0.0
        count = 0
        with torch.no_grad():
            for number, batch in enumerate(self.validation):
                self.objective.seeds = (VALIDATION, number, self.fabric.global_rank)
                batch = self.steps.converted(batch)
                total = total + sum_of(self.steps.terms(batch).values())
                count += len(batch[0])
        self.objective.train()
        mean = float(self.steps.mean(total / count))
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
        if bool(self.steps.mean(self._finite.float()) < 1):
            self.steps.together(self._replay)
        self._seen = (self.progress.step, copy.deepcopy(self.steps.state()))

    def _replay(self) -> None:
        """Take the steps since the last look again, each loss looked at."""
        step, state = self._seen
        last, self.progress = self.progress.step, Progress(step=step)
        self.steps.load(state)
        while self.progress.step < last:
            epoch, number = divmod(self.progress.step, self.epoch_length)
            self.batches.set_epoch(epoch)
            batch = self.batches.batch(number)
            self.steps.begin(self.progress.step)
            terms = self.steps.module(*self.steps.converted(batch))
            loss = sum_of(terms.values())
            if not bool(torch.isfinite(loss)):
                site = self.objective.broken_site(*batch)
                raise self.objective.not_finite(str(loss.item()), site)
            self.step(batch)
            self.progress.step += 1
        raise self.objective.not_finite("not finite", None)

    def _keep(self, name: str) -> None:
        """Save parameters that are here to stay, with what is to be left beside them."""
        if self.plan.before_keeping is not None:
            self.plan.before_keeping()
        self._save(name)

    def _save(self, name: str) -> None:
        if self.fabric.is_global_zero:
            content = {**self.steps.state(), "progress": self.progress.as_dict()}
            write_checkpoint(self.folder / name, content)
        if name == CHECKPOINT:
            self._saved = self.progress.step
