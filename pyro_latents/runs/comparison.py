"""Runs of one story on one data set, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from pyro_latents.errors import UserError
from pyro_latents.evaluation.active_units import active_units
from pyro_latents.files import write_json
from pyro_latents.plots import dots, save
from pyro_latents.runs.folder import seconds_per_step
from pyro_latents.runs.recipe import Run
from pyro_latents.text import aligned

# What is said of each run first, where the story measures it; the divergences follow.
FIRST = ("elbo", "log_likelihood", "gap", "k_hat_above_0.7", "effective_sample_size")


@dataclass(frozen=True)
class Comparison:
    """A row of figures for each run.

    Args:
        labels: What the runs are called: the guide, and the folder where two have one guide.
        rows: The figures of each run by name; log-probabilities in nats per data point, shares in
            per cent.
    """

    labels: tuple[str, ...]
    rows: tuple[dict[str, float], ...]

    @property
    def columns(self) -> list[str]:
        """The names of all figures, the most telling first."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        first = [name for name in FIRST if name in names]
        return first + [name for name in names if name not in first]

    def as_text(self) -> str:
        """Return a table with one line for each figure and one column for each run."""
        cells = [["", *self.labels]]
        for name in self.columns:
            cells.append([name, *[_shown(row.get(name)) for row in self.rows]])
        return aligned(cells, right=True)

    def figure(self) -> Figure:
        """Draw the bound and the importance-weighted likelihood of every run."""
        names = [name for name in ("elbo", "log_likelihood") if name in self.columns]
        return dots(
            {name: [row[name] for row in self.rows] for name in names},
            self.labels,
            "nats per data point",
        )

    def write(self, folder: Path) -> list[Path]:
        """Write ``comparison.json`` and ``comparison.png`` and return their paths."""
        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "comparison.json"
        write_json(path, dict(zip(self.labels, self.rows, strict=True)))
        return [path, save(self.figure(), folder / "comparison.png")]


def check_free(folder: Path) -> None:
    """See that a comparison can be written to a folder, before minutes are spent on it.

    Raises:
        UserError: if not.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{folder} cannot be written: give another --out.")


def compare(runs: Sequence[Run], *, particles: int = 1000, points: int = 100) -> Comparison:
    """Measure runs of one story on the same test data.

    Args:
        runs: At least two of them.
        particles: Importance samples for the marginal likelihood of a data point.
        points: Test points to measure on, the first ones.

    Raises:
        UserError: if there are fewer than two runs, or they are of different stories or data.
    """
    if points < 1:
        raise UserError(f"--points must be at least 1; got {points}.")
    if len(runs) < 2:
        raise UserError("compare two runs or more: give their folders.")
    _check_comparable(runs)
    rows = []
    for run in runs:
        parts = run.parts
        found = run.measure(particles=particles, likelihood_points=points, limit_test=points)
        if {"elbo", "log_likelihood"} <= found.keys():
            found["gap"] = found["log_likelihood"] - found["elbo"]
        batches = parts.batches("test", limit=points)
        for site, count in active_units(parts.guide, batches, seed=parts.seed).items():
            found[f"active_units_{site}"] = count
        found["guide_parameters"] = _size(parts.guide, parts.model)
        found["seconds_per_step"] = seconds_per_step(run.folder.read_history())
        rows.append(found)
    return Comparison(_labels(runs), tuple(rows))


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for what, mine, theirs in (
            ("stories", first.story.name, run.story.name),
            ("data", first.config["settings"]["data"], run.config["settings"]["data"]),
        ):
            if mine != theirs:
                raise UserError(
                    f"{first.path} and {run.path} are of different {what}, {mine} and {theirs}: "
                    "compare runs that differ in their guides or settings alone."
                )


def _labels(runs: Sequence[Run]) -> tuple[str, ...]:
    guides = [run.config["guide"] for run in runs]
    if len(set(guides)) == len(guides):
        return tuple(guides)
    return tuple(f"{guide} ({run.path})" for guide, run in zip(guides, runs, strict=True))


def _size(guide: Any, model: nn.Module) -> int:
    """The number of the guide's parameters, without those that it shares with the model."""
    if not isinstance(guide, nn.Module):
        return 0
    shared = set(model.parameters())
    return sum(own.numel() for own in guide.parameters() if own not in shared)


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1
        else (f"{value:.2f}" if isinstance(value, float) else str(value))
    )
