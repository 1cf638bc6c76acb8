"""The loss of one batch, as a module that owns model and guide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_latents.data.batches import mixed_seed
from pyro_latents.errors import NotFiniteError
from pyro_latents.losses.captured import Update, captured
from pyro_latents.programs import local_parameters
from pyro_latents.training.non_finite import first_non_finite_site
from pyro_latents.training.plan import Phase

# Pyro's checks of shapes, supports and parameters cost milliseconds a step. What is wrong with a
# model or its data shows in the first steps; after them the loss alone is watched.
CHECKED_STEPS = 10
# Capturing takes as long as hundreds of steps gain by it, and changes the last digit of some
# losses: from which step on is the same for every training, however often it is resumed.
CAPTURED_FROM = 100


class Objective(nn.Module):
    """The terms of the loss of a batch in a phase, sums over the data plate in nats.

    The random state of a call is a function of the seeds, and nothing else: a resumed run draws
    what an uninterrupted one would have drawn.

    Args:
        model: The generative model.
        guide: Its guide, with the same arguments.
        loss: The objective; a sum over the data plate.
        seed: Of the draws of model and guide.

    Attributes:
        phase: The phase of the next call, None for the whole objective.
        seeds: What the random state of the next call is made of, beside the seed.
        held: What the latest call of a phase with a trial drew, for `terms_at`.
        capturing: Whether losses with a gradient are captured.
        reason: Why the latest loss or step that was to be captured was not, None if it was.
    """

    def __init__(self, model: Any, guide: Any, loss: ELBO, seed: int) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        self.loss = loss
        self.seed = seed
        self.phase: Phase | None = None
        self.seeds: tuple[int, ...] = ()
        self.held: Any = None
        self.capturing = False
        self.reason: str | None = None
        self._calls = 0
        self._captured: dict[tuple[int, bool], captured] = {}

    def train(self, mode: bool = True) -> Objective:
        """Set the mode of the programs; a model without a gradient stays in evaluation mode.

        So do the parts of it that its guide has as well.
        """
        super().train(mode)
        if isinstance(self.model, nn.Module) and not any(
            parameter.requires_grad for parameter in self.model.parameters()
        ):
            self.model.eval()
        return self

    def forward(self, *batch: Any) -> dict[str, Tensor]:
        """Return named terms that add to the loss of the batch.

        Raises:
            UserError: if a parameter of a distribution is not finite; the message names the site.
        """
        loss, model, guide = self.programs()
        with self._watched(batch), self._local():
            if self.phase is not None and self.phase.trial is not None:
                terms, self.held = loss.hold(model, guide, *batch)
                return terms
            if self.capturing:
                # Divided in the graph, where the programs' gradient has it too: to the last digit.
                return {"loss": self._replay(None, batch) * len(batch[0])}
            return {"loss": loss.differentiable_loss(model, guide, *batch)}

    def step(self, optimizer: Update, *batch: Any) -> Tensor:
        """Take a captured step of an optimiser, the same one for each phase.

        Returns:
            The loss, in nats per data point.

        Raises:
            UserError: as `forward` does.
        """
        with self._watched(batch):
            return self._replay(optimizer, batch)

    def forget(self) -> None:
        """Capture anew: a graph reads the tensors that an optimiser had when it was captured."""
        self._captured.clear()

    def _replay(self, optimizer: Update | None, batch: tuple[Any, ...]) -> Tensor:
        # A phase is there as long as its plan is.
        key = id(self.phase), optimizer is None
        if key not in self._captured:
            loss, model, guide = self.programs()
            self._captured[key] = captured(_PerDataPoint(loss), model, guide, optimizer)
        replayed = self._captured[key]
        loss = replayed(*batch)
        self.reason = replayed.reason
        return loss

    @contextmanager
    def _watched(self, batch: tuple[Any, ...]) -> Iterator[None]:
        """Set the random state, check the first calls, and say which site is not finite."""
        self._seed_draws()
        self._calls += 1
        self.reason = None
        try:
            with pyro.validation_enabled(self._calls <= CHECKED_STEPS):
                yield
        except ValueError as error:
            # Parameters that are not finite fail the validation of a distribution.
            site = self.broken_site(*batch)
            if site is None:
                raise
            raise self.not_finite("not finite", site) from error

    def _seed_draws(self) -> None:
        seed_draws(mixed_seed(self.seed, *self.seeds))

    def terms_at(self, *batch: Tensor) -> dict[str, Tensor]:
        """Return the terms of a tried step again, at its draws, with the parameters of now."""
        loss, model, guide = self.programs()
        with self._local(), pyro.validation_enabled(False):
            return loss.terms_at(self.held, model, guide, *batch)

    def programs(self) -> tuple[Any, Callable, Callable]:
        """Return the loss, model and guide of the phase."""
        phase = self.phase or Phase(())
        return phase.loss or self.loss, phase.model or self.model, phase.guide or self.guide

    def _local(self) -> AbstractContextManager[None]:
        return local_parameters(self.model, self.guide, *self.programs()[1:])

    def broken_site(self, *batch: Tensor) -> str | None:
        """Run the programs of the phase again and say where they stop being finite."""
        _, model, guide = self.programs()
        self._seed_draws()
        with self._local():
            return first_non_finite_site(model, guide, batch)

    def not_finite(self, loss: str, site: str | None) -> NotFiniteError:
        """Return the error that a loss which is not finite ends the training with."""
        site = site or "every site is finite on its own, the objective is not"
        step = self.seeds[0]
        # Validation has seeds below those of the steps.
        where = f"at step {step}" if step >= 0 else "in validation"
        return NotFiniteError(
            f"the loss is {loss} {where}: {site}. Lower --learning-rate or set --gradient-clip."
        )


class _PerDataPoint:
    """An objective in nats per data point."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def differentiable_loss(self, model: Any, guide: Any, *batch: Any) -> Tensor:
        """Return the loss, divided by the number of data points."""
        return self.loss.differentiable_loss(model, guide, *batch) / len(batch[0])


def seed_draws(seed: int) -> None:
    """Set the state of torch's generators, as `torch.manual_seed` does, in microseconds.

    Where no accelerator has been used yet, `torch.manual_seed` notes a stack trace for each kind
    of device, which takes milliseconds: too long for every step. So does looking for CUDA's
    libraries, which `torch.cuda.is_available` does each time it finds no device.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
