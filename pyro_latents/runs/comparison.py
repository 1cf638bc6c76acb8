"""Runs of one story on one data set, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import nn

from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.active_units import active_units
from pyro_latents.files import check_writable, write_json
from pyro_latents.plots import dots, save
from pyro_latents.runs.opened import Opened
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
        return list(dict.fromkeys([*(name for name in FIRST if name in names), *names]))

    def as_text(self) -> str:
        """Return a table with one line for each figure and one column for each run."""
        rows = [[name, *(_shown(row.get(name)) for row in self.rows)] for name in self.columns]
        return aligned([["", *self.labels], *rows], right=True)

    def figure(self) -> Figure:
        """Draw the bound and the importance-weighted likelihood of every run."""
        names = {"elbo", "log_likelihood"} & set(self.columns)
        heights = {name: [row[name] for row in self.rows] for name in sorted(names)}
        return dots(heights, self.labels, "nats per data point")

    def write(self, folder: Path) -> list[Path]:
        """Write ``comparison.json`` and ``comparison.png`` and return their paths."""
        check_writable(folder, "give another --out")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "comparison.json"
        write_json(path, dict(zip(self.labels, self.rows, strict=True)))
        return [path, save(self.figure(), folder / "comparison.png")]


def compare(runs: Sequence[Opened], *, particles: int = 1000, points: int = 100) -> Comparison:
    """Measure runs of one story on the same test data.

    Args:
        runs: At least two of them.
        particles: Importance samples for the marginal likelihood of a data point.
        points: Test points to measure on, the first ones.

    Raises:
        UserError: if there are fewer than two runs, or they are of different stories or data.
    """
    check_counts(1, points=points)
    if len(runs) < 2:
        raise UserError("compare two runs or more: give their folders.")
    for other in runs[1:]:
        _check_comparable(runs[0], other)
    rows = []
    for run in runs:
        parts = run.parts
        found = run.measure(particles=particles, likelihood_points=points, limit_test=points)
        if {"elbo", "log_likelihood"} <= found.keys():
            found["gap"] = found["log_likelihood"] - found["elbo"]
        active = active_units(parts.guide, parts.batches("test", limit=points), seed=parts.seed)
        found |= {f"active_units_{site}": count for site, count in active.items()}
        found["guide_parameters"] = _size(parts.guide, parts.model)
        found["seconds_per_step"] = _seconds_per_step(run.folder.read_history())
        rows.append(found)
    return Comparison(_labels(runs), tuple(rows))


def _check_comparable(first: Opened, other: Opened) -> None:
    for what, mine, theirs in (
        ("stories", first.story.name, other.story.name),
        ("data", first.config["settings"]["data"], other.config["settings"]["data"]),
    ):
        if mine != theirs:
            raise UserError(
                f"{first.path} and {other.path} are of different {what}, {mine} and {theirs}: "
                "compare runs that differ in their guides or settings alone."
            )


def _labels(runs: Sequence[Opened]) -> tuple[str, ...]:
    guides = [run.config["guide"] for run in runs]
    if len(set(guides)) == len(guides):
        return tuple(guides)
    return tuple(f"{guide} ({run.path})" for guide, run in zip(guides, runs, strict=True))


def _size(guide: nn.Module, model: nn.Module) -> int:
    """The number of the guide's parameters, without those that it shares with the model."""
    shared = set(model.parameters())
    return sum(own.numel() for own in guide.parameters() if own not in shared)


def _seconds_per_step(history: list[dict[str, str]]) -> float:
    seconds = [float(row["seconds"]) for row in history]
    return sum(filter(math.isfinite, seconds)) / int(history[-1]["step"])


def _shown(value: float | None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return "" if value is None else str(value)
