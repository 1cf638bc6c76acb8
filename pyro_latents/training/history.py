"""One row of measurements an epoch."""

import csv
import io
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_latents.files import write_text

COLUMNS = ("epoch", "step", "loss", "validation_loss", "learning_rate", "seconds")

Row = dict[str, float | int | None]


@dataclass
class Progress:
    """How far a training is: what a checkpoint holds beside parameters and optimisers.

    Losses are in nats per data point.

    Attributes:
        step: The steps that were taken.
        rows: The finished epochs, and one that was cut; `COLUMNS` by name.
        total: The sum of the losses of the epoch's steps, on their device.
        counted: The number of these steps.
        best: The lowest validation loss.
        waited: Epochs since then.
        kept: Whether the training ended there, and was not killed on its way.
    """

    step: int = 0
    rows: list[Row] = field(default_factory=list)
    total: Tensor | float = 0.0
    counted: int = 0
    best: float | None = None
    waited: int = 0
    kept: bool = False
    _began: float = field(default=0.0, repr=False)

    def begin_epoch(self, *, cut: bool) -> None:
        """Begin the sums of an epoch, or go on with those of one that was cut."""
        self.kept, self._began = False, time.perf_counter()
        if cut:
            self._began -= self.rows.pop()["seconds"] or 0.0
        else:
            self.total, self.counted = 0.0, 0

    def count(self, loss: Tensor) -> None:
        """Add the loss of a step, on its device."""
        total = self.total.to(loss.device) if isinstance(self.total, Tensor) else self.total
        self.total = total + loss
        self.counted += 1
        self.step += 1

    def end_epoch(
        self, epoch: int, mean: float, validation: float | None, learning_rate: float
    ) -> None:
        """Add the row of an epoch, whole or cut."""
        seconds = round(time.perf_counter() - self._began, 3)
        row = (epoch, self.step, mean, validation, learning_rate, seconds)
        self.rows.append(dict(zip(COLUMNS, row, strict=True)))

    def improved(self, validation: float) -> bool:
        """Note a validation loss, and say whether it is the best so far."""
        better = self.best is None or validation < self.best
        if better:
            self.best, self.waited = validation, 0
        else:
            self.waited += 1
        return better

    def as_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, for a checkpoint."""
        content = asdict(self)
        del content["_began"]
        return content

    def write(self, path: Path) -> None:
        """Write the rows as a table, whole."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(path, text.getvalue())
