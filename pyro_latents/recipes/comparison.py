"""Runs of one story on one data set, side by side."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pyro_latents.errors import UserError
from pyro_latents.evaluation.active_units import active_units
from pyro_latents.files import write_json
from pyro_latents.plots import dots, save
from pyro_latents.recipes.recipe import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(
                f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}"
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        )

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
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "comparison.json"
        write_json(path, dict(zip(self.labels, self.rows, strict=True)))
        return [path, save(self.figure(), folder / "comparison.png")]


def compare(runs: Sequence[Run], *, particles: int = 1000, points: int = 100) -> Comparison:
    """Measure runs of one story on the same test data.

    Args:
        runs: At least two of them.
        particles: Importance samples for the marginal likelihood of a data point.
        points: Test points to measure on, the first ones.

    Raises:
        UserError: if there are fewer than two runs, or they are of different stories or data.
    """
    if len(runs) < 2:
        raise UserError("compare two runs or more: give their folders.")
    _check_comparable(runs)
    rows = []
    for run in runs:
        recipe = run.recipe
        found = run.measure(particles=particles, likelihood_points=points, limit_test=points)
        if {"elbo", "log_likelihood"} <= found.keys():
            found["gap"] = found["log_likelihood"] - found["elbo"]
        batches = recipe.settings.build_batches(
            recipe.splits.test.take(slice(points)), recipe.splits
        )
        for site, count in active_units(recipe.guide, batches, seed=recipe.seed).items():
            found[f"active_units_{site}"] = count
        found["guide_parameters"] = _size(recipe.guide)
        found["seconds_per_step"] = _seconds_per_step(run)
        rows.append(found)
    return Comparison(_labels(runs), tuple(rows))


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for what, mine, theirs in (
            ("stories", _story(first), _story(run)),
            ("data", first.config["settings"]["data"], run.config["settings"]["data"]),
        ):
            if mine != theirs:
                raise UserError(
                    f"{first.path} and {run.path} are of different {what}, {mine} and {theirs}: "
                    "compare runs that differ in their guides or settings alone."
                )


def _story(run: Run) -> str:
    return run.settings.story


def _labels(runs: Sequence[Run]) -> tuple[str, ...]:
    guides = [run.config["guide"] for run in runs]
    if len(set(guides)) == len(guides):
        return tuple(guides)
    return tuple(f"{guide} ({run.path})" for guide, run in zip(guides, runs, strict=True))


def _size(guide: Any) -> int:
    if not isinstance(guide, nn.Module):
        return 0
    return sum(parameter.numel() for parameter in guide.parameters())


def _seconds_per_step(run: Run) -> float:
    with open(run.folder.history_path, newline="") as file:
        rows = list(csv.DictReader(file))
    return sum(float(row["seconds"]) for row in rows) / int(rows[-1]["step"])


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1
        else (f"{value:.2f}" if isinstance(value, float) else str(value))
    )
