"""What every table and figure of a paper shares: its name, its budget, and the files it writes."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from pyro_latents.errors import UserError
from pyro_latents.files import write_json, write_text
from pyro_latents.recipes.recipe import Recipe, Run

PAPERS: tuple[str, ...] = (
    "connor",
    "connor_images",
    "feige",
    "feige_figures",
    "giannone",
    "giannone_figures",
    "vive",
    "vive_figures",
)
# Minutes, an hour or two, or what the paper did.
BUDGETS = ("quick", "hours", "paper")

Cell = str | float | int | None


@dataclass(frozen=True)
class Context:
    """What an experiment is asked for.

    Args:
        budget: ``quick`` (minutes on two cores), ``hours`` (all the data, a shorter schedule and
            one run where the paper has several), or the ``paper``'s own. Where an experiment does
            not tell the last two apart, ``hours`` is the paper's.
        out: The folder to write to.
        data: Name of a data source other than the paper's, None for the paper's.
        data_dir: Where data sets lie; None for ``PYRO_LATENTS_DATA``.
        seed: Of everything that is drawn.
    """

    budget: Literal["quick", "hours", "paper"]
    out: Path
    data: str | None = None
    data_dir: str | Path | None = None
    seed: int = 0

    def train(self, recipe: Recipe, folder: str, **options: Any) -> Run:
        """Train a recipe into a folder of this experiment, or take up where that stopped.

        Args:
            recipe: The recipe.
            folder: The folder's name, within ``out``.
            **options: Those of `Recipe.train`.
        """
        return recipe.train(self.out / folder, resume=True, **options)


@dataclass(frozen=True)
class Result:
    """A table, with what one must know to believe it.

    Args:
        title: What it shows, in one line.
        columns: The columns' names.
        rows: The cells; None where there is nothing to say. Figures of the paper have columns of
            their own beside ours.
        settings: Every setting that matters: epochs, sizes, weights, data and their provenance.
        figures: Pictures that belong to it.
        notes: Sentences for the reader of the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    settings: dict[str, Any] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    notes: Sequence[str] = ()

    def as_markdown(self) -> str:
        """Return the table as text that reads well as it is."""
        cells = [list(self.columns), *[[_shown(cell) for cell in row] for row in self.rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "| " + " | ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join([self.title, "", *lines, *["", *self.notes][: 1 + len(self.notes)], ""])


@dataclass(frozen=True)
class Experiment:
    """A named table or figure.

    Args:
        name: Its name on the command line, such as ``giannone-table1``.
        summary: What it shows, from the first line of the function's docstring.
        run: Runs it.
    """

    name: str
    summary: str
    run: Callable[[Context], Result]


_EXPERIMENTS: dict[str, Experiment] = {}


def experiment(name: str) -> Callable[[Callable[[Context], Result]], Callable[[Context], Result]]:
    """Make a function an experiment of that name."""

    def register(function: Callable[[Context], Result]) -> Callable[[Context], Result]:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        _EXPERIMENTS[name] = Experiment(name, summary, function)
        return function

    return register


@cache
def experiments() -> dict[str, Experiment]:
    """Every experiment by name."""
    for paper in PAPERS:
        import_module(f"pyro_latents.reproduce.{paper}")
    return dict(sorted(_EXPERIMENTS.items()))


def reproduce(name: str, context: Context) -> Result:
    """Run an experiment and write ``NAME.json`` and ``NAME.md`` into the context's folder.

    Raises:
        UserError: if there is no such experiment or budget, or the folder is a file.
    """
    known = experiments()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
        raise UserError(f"unknown table {name!r}: {hint}")
    if context.budget not in BUDGETS:
        raise UserError(f"unknown budget {context.budget!r}: give quick, hours or paper.")
    if context.out.exists() and not context.out.is_dir():
        raise UserError(f"{context.out} is a file: give another --out.")
    context.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    result = known[name].run(context)
    write_json(
        context.out / f"{name}.json",
        {
            "experiment": name,
            "title": result.title,
            "command": " ".join(["pyro-latents", *sys.argv[1:]]),
            "budget": context.budget,
            "seed": context.seed,
            "date": date.today().isoformat(),
            "hardware": hardware(),
            "seconds": round(time.perf_counter() - began, 1),
            "torch": torch.__version__,
            "settings": result.settings,
            "columns": list(result.columns),
            "rows": [list(row) for row in result.rows],
            "figures": [str(path) for path in result.figures],
            "notes": list(result.notes),
        },
    )
    write_text(context.out / f"{name}.md", result.as_markdown())
    return result


def hardware() -> str:
    """What the figures were measured on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{len(os.sched_getaffinity(0))} CPU cores, {platform.machine()}"


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
