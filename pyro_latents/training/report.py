"""What a training tells the person who watches it, on the error stream and nowhere else."""

from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm

from pyro_latents.progress import Lenient, bar, on_terminal

# Reading a loss waits for the device.
READ_EVERY = 20
# What is told where there is no bar, about so often.
LINES = 10


class Report:
    """A bar with the loss on a terminal; elsewhere a line now and then, of a whole epoch.

    Args:
        shown: Whether to tell anything.
        done: Steps that were taken before.
        steps: Steps that will have been taken.
    """

    def __init__(self, shown: bool, done: int, steps: int) -> None:
        self._lines = shown and not on_terminal()
        self._steps, self._next = steps, done
        self._bar: tqdm | None = None
        self._told: set[str] = set()
        if shown and not self._lines:
            self._bar = bar(initial=done, total=steps, unit="step")

    def step(self, number: int, loss: Any) -> None:
        """Note a step and, now and then, its loss."""
        if self._bar is None:
            return
        if number % READ_EVERY == 0:
            self._bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
        self._bar.update()

    def uncaptured(self, reasons: Mapping[str, str]) -> None:
        """Tell once of each phase why its steps are run by the programs."""
        for phase in [name for name in reasons if name not in self._told]:
            self._told.add(phase)
            line = f"steps are not captured ({phase}): {reasons[phase]}"
            if self._bar is not None:
                self._bar.write(line, file=Lenient())
            elif self._lines:
                print(line, file=Lenient(), flush=True)

    def epoch(self, row: dict[str, Any]) -> None:
        """Tell of an epoch where there is no bar: of the first, the last, and some between."""
        if self._lines and (row["step"] >= min(self._next, self._steps)):
            self._next = max(self._next, row["step"]) + self._steps / LINES
            print(summary(row), file=Lenient(), flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def summary(row: dict[str, Any]) -> str:
    """Return an epoch's row of the history in words; losses are in nats per data point."""
    text = f"epoch {row['epoch']}, step {row['step']}, loss {float(row['loss']):.2f}"
    if row["validation_loss"] not in (None, ""):
        text += f", validation loss {float(row['validation_loss']):.2f} nats"
    return text
