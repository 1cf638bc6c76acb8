"""The Lightning module around `loss(model, guide)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_latents.data.batches import mixed_seed
from pyro_latents.errors import UserError
from pyro_latents.parameters import local_parameters
from pyro_latents.training.history import batches_done
from pyro_latents.training.non_finite import first_non_finite_site
from pyro_latents.training.ranks import together

Batch = tuple[Tensor, ...]
OptimizerFactory = Callable[[nn.Module], tuple[Optimizer, LRScheduler | None]]

VALIDATION = -1

# Pyro's checks of shapes, supports and parameters cost milliseconds a step. What is wrong with a
# model or its data shows in the first steps; after them the loss alone is watched.
CHECKED_STEPS = 10


class SVIModule(lightning.LightningModule):
    """One gradient step of SVI, with the parameters of this model and guide only.

    The random state of a step is a function of the seed, the step and the rank, and nothing else:
    a resumed run draws what an uninterrupted one would have drawn.

    Args:
        model: The generative model.
        guide: Its guide, with the same arguments.
        elbo: The objective; its loss is a sum over the data plate.
        build_optimizer: Returns the optimiser, and a schedule that steps each epoch or None.
        seed: Of the draws of model and guide.

    Attributes:
        steps_use_all_parameters: Whether every step has a gradient for each parameter. Where not,
            ranks must look for those without one, lest they wait for it.
    """

    steps_use_all_parameters = True

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        elbo: ELBO,
        build_optimizer: OptimizerFactory,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.elbo = elbo(model, guide)
        self.seed = seed
        self._build_optimizer = build_optimizer
        self._steps = 0

    def configure_optimizers(self) -> Any:
        """Hand the optimiser and its schedule to Lightning."""
        optimizer, schedule = self._build_optimizer(self.elbo)
        return optimizer if schedule is None else ([optimizer], [schedule])

    def loss(self, batch: Batch, *seeds: int) -> Tensor:
        """Return the loss in nats per data point, with the random state of these seeds.

        Raises:
            UserError: if it is not finite; the message names the site where that began.
        """
        seed_draws(mixed_seed(self.seed, *seeds))
        self._steps += 1
        checked = pyro.validation_enabled(self._steps <= CHECKED_STEPS)
        try:
            with local_parameters(self.elbo.model, self.elbo.guide), checked:
                loss = self.elbo(*batch) / len(batch[0])
        except ValueError as error:
            # Parameters that are not finite fail the validation of a distribution.
            site = self._first_non_finite_site(batch, *seeds)
            if site is None:
                raise
            raise UserError(self._message("not finite", site)) from error
        if not torch.isfinite(loss):
            site = self._first_non_finite_site(batch, *seeds)
            site = site or "every site is finite on its own, the objective is not"
            raise UserError(self._message(str(loss.item()), site))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a training batch, in nats per data point."""
        seeds = self.global_step, self.global_rank
        return together(lambda: self.loss(batch, *seeds), self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss on the validation data, with the same draws at every epoch."""
        seeds = VALIDATION, batch_idx, self.global_rank
        loss = together(lambda: self.loss(batch, *seeds), self.device)
        self.log("validation_loss", loss, batch_size=len(batch[0]), sync_dist=True)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule once an epoch of the data, however often Lightning's were cut."""
        if scheduler.last_epoch < batches_done(self.trainer) // len(self.trainer.train_dataloader):
            scheduler.step()

    def _first_non_finite_site(self, batch: Batch, *seeds: int) -> str | None:
        seed_draws(mixed_seed(self.seed, *seeds))
        with local_parameters(self.elbo.model, self.elbo.guide):
            return first_non_finite_site(self.elbo.model, self.elbo.guide, batch)

    def _message(self, loss: str, site: str) -> str:
        step = self.global_step
        return (
            f"the loss is {loss} at step {step}: {site}. "
            "Lower --learning-rate or set --gradient-clip."
        )


def seed_draws(seed: int) -> None:
    """Set the state of torch's generators, as `torch.manual_seed` does, in microseconds.

    Where no accelerator has been used yet, `torch.manual_seed` notes a stack trace for each kind
    of device, which takes milliseconds: too long for every step. So does looking for CUDA's
    libraries, which `torch.cuda.is_available` does each time it finds no device.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
