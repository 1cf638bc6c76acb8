"""What the verbs of this package need of a run, whoever opens it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from pyro_latents.runs.folder import RunFolder
from pyro_latents.stories.story import Parts, Story


class Opened(ABC):
    """A run whose parts are there: `check`, `compare` and `report` are functions of one.

    Attributes:
        folder: Its files.
        path: Where they are.
        config: What it was trained with.
    """

    folder: RunFolder
    path: Path
    config: dict[str, Any]

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """The trained parts."""

    @property
    @abstractmethod
    def story(self) -> Story:
        """The hyper-parameters."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """What was measured of the run so far."""

    @property
    def training_path(self) -> Path:
        """Where the run itself is, whatever data its results are on."""
        return self.folder.of_training().path

    @property
    def told_data(self) -> str:
        """The data that it is measured on by name, and those of its training if others."""
        trained, other = self.config["settings"]["data"], self.folder.data
        return trained if other is None else f"{other}, trained on {trained}"

    @abstractmethod
    def measure(
        self, *, particles: int, likelihood_points: int, limit_test: int | None
    ) -> dict[str, float]:
        """Return what is measured of the run, and write nothing."""

    @abstractmethod
    def plot(self, folder: str | Path | None = None) -> list[Path]:
        """Draw the pictures of the run, into its own folder or another; return their paths."""
