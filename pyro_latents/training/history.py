"""One row of measurements an epoch."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning
from lightning import Callback
from torch import Tensor

from pyro_latents.files import write_text

COLUMNS = ("epoch", "step", "loss", "validation_loss", "learning_rate", "seconds")


def batches_done(trainer: lightning.Trainer) -> int:
    """Training batches since the beginning of the run, those before a resumption included."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.completed


class History(Callback):
    """Keeps the mean loss of each epoch in the checkpoint, and writes it as a table.

    The rows are a part of the checkpoint, so that the table of a resumed run is that of a run
    which never stopped, seconds apart. Losses are in nats per data point.

    Args:
        path: The CSV file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float | int | None]] = []
        self._total: Tensor | None = None
        self._steps = 0
        self._began = 0.0

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin the sums of an epoch, or go on with those of one that was cut."""
        self._began = time.perf_counter()
        if batches_done(trainer) % len(trainer.train_dataloader) == 0:
            self._total, self._steps = None, 0
        else:
            self._began -= self.rows.pop()["seconds"] or 0.0

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the loss of a step, on its device."""
        loss = outputs["loss"].detach()
        self._total = loss if self._total is None else self._total.to(loss.device) + loss
        self._steps += 1

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Add the row of the epoch and write the table."""
        if self._total is None:
            # Lightning ends an epoch without a batch when it resumes at the end of one.
            return
        # Kept for a resumption too, which may have another number of ranks.
        self._total = trainer.strategy.reduce(self._total, reduce_op="mean")
        mean = self._total / self._steps
        done, batches = batches_done(trainer), len(trainer.train_dataloader)
        # An epoch that is cut has no validation of its own, only that of the one before.
        validation = None if done % batches else trainer.callback_metrics.get("validation_loss")
        self.rows.append(
            {
                "epoch": (done - 1) // batches + 1,
                "step": done,
                "loss": mean.item(),
                "validation_loss": None if validation is None else validation.item(),
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": round(time.perf_counter() - self._began, 3),
            }
        )
        if trainer.is_global_zero:
            self.write()

    def write(self) -> None:
        """Write the table, whole."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and the sums of the latest epoch, for the checkpoint."""
        return {"rows": self.rows, "total": self._total, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])
        self._total, self._steps = state_dict["total"], state_dict["steps"]
