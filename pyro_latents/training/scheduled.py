"""Training with settings that follow the epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pyro_latents.training.history import batches_done
from pyro_latents.training.svi_module import Batch, OptimizerFactory, SVIModule


class ScheduledModule(SVIModule):
    """SVI with something set before each step, and something done at the end.

    What is set is a function of the epochs done and of nothing else: a resumed run goes on as if
    it had not stopped.

    Args:
        model: The generative model.
        guide: Its guide.
        elbo: The objective.
        build_optimizer: Returns the optimiser, and a schedule that steps each epoch or None.
        before_step: Called before each training step with the epochs done, a fraction within an
            epoch, and with None before each validation step.
        at_end: Called when training ends, before its last checkpoint.
        seed: Of the draws of model and guide.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        elbo: Any,
        build_optimizer: OptimizerFactory,
        *,
        before_step: Callable[[float | None], None] = lambda epochs: None,
        at_end: Callable[[], None] = lambda: None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, guide, elbo, build_optimizer, seed=seed)
        self._before_step = before_step
        self._at_end = at_end

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a training batch, in nats per data point."""
        self._before_step(batches_done(self.trainer) / len(self.trainer.train_dataloader))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss on the validation data."""
        self._before_step(None)
        super().validation_step(batch, batch_idx)

    def on_train_end(self) -> None:
        """Do what is to be done at the end."""
        self._before_step(None)
        self._at_end()
