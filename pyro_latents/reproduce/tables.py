"""Every table and figure by its name, and the files that one writes."""

from __future__ import annotations

import sys
import time
from datetime import date
from pathlib import Path

import torch

from pyro_latents.data.folders import data_folder
from pyro_latents.data.sources import load
from pyro_latents.errors import UserError, check_seed
from pyro_latents.files import write_json, write_text
from pyro_latents.reproduce import (
    connor,
    connor_aids,
    connor_images,
    connor_rotated,
    feige,
    feige_figures,
    giannone,
    giannone_coherence,
    giannone_epochs,
    giannone_floors,
    giannone_likelihood,
    giannone_transfer,
    giannone_turns,
    vive,
    vive_ablation,
    vive_figures,
    vive_rotated,
)
from pyro_latents.reproduce.experiment import Budget, Context, Experiment, Result, hardware
from pyro_latents.text import did_you_mean

PAPERS = (
    connor,
    connor_aids,
    connor_images,
    connor_rotated,
    feige,
    feige_figures,
    giannone,
    giannone_coherence,
    giannone_epochs,
    giannone_floors,
    giannone_likelihood,
    giannone_transfer,
    giannone_turns,
    vive,
    vive_ablation,
    vive_figures,
    vive_rotated,
)


def experiments() -> dict[str, Experiment]:
    """Every experiment by name."""
    values = (value for paper in PAPERS for value in vars(paper).values())
    found = {value.name: value for value in values if isinstance(value, Experiment)}
    return dict(sorted(found.items()))


def reproduce(
    name: str,
    *,
    out: str | Path,
    budget: str | Budget = "paper",
    data: str | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    processes: int | None = None,
    precision: str = "32-true",
) -> Result:
    """Run an experiment and write ``NAME.json`` and ``NAME.md``.

    Args:
        name: The experiment's name.
        out: The folder to write to.
        budget: How much is done: ``quick``, ``hours``, ``paper``, or a budget of your own.
        data: Name of a data source other than the paper's, None for the paper's.
        data_dir: Where data sets lie; None for ``PYRO_LATENTS_DATA``.
        seed: Of everything that is drawn.
        processes: How many trainings at once; None for one a core.
        precision: Lightning's name of the number format of the trainings.

    Raises:
        UserError: if there is no such experiment or budget, it cannot be run on the data or they
            are not there, or the folder is a file.
    """
    known = experiments()
    if name not in known:
        raise UserError(f"unknown table {name!r}: {did_you_mean(name, known)}")
    check_seed(seed)
    chosen, out = known[name], Path(out)
    context = Context(_budget(chosen, budget), out, data, data_dir, seed, processes, precision)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give another --out.")
    _check_data(chosen, context)
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    result = chosen.run(context)
    record = {
        "experiment": name,
        "title": result.title,
        "command": " ".join(["pyro-latents", *sys.argv[1:]]),
        "budget": context.budget.name,
        "seed": seed,
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "seconds": round(time.perf_counter() - began, 1),
        "torch": torch.__version__,
        "settings": result.settings,
        "columns": list(result.columns),
        "rows": [list(row) for row in result.rows],
        "figures": [str(path) for path in result.figures],
        "notes": list(result.notes),
    }
    write_json(out / f"{name}.json", record)
    write_text(out / f"{name}.md", result.as_markdown())
    return result


def _budget(chosen: Experiment, budget: str | Budget) -> Budget:
    if isinstance(budget, Budget):
        return budget
    known = {each.name: each for each in chosen.budgets}
    if budget not in known:
        raise UserError(f"unknown budget {budget!r}: {did_you_mean(budget, known)}")
    return known[budget]


def _check_data(chosen: Experiment, context: Context) -> None:
    """Raise where data make no sense or are not there, before hours are spent on others."""
    if context.data is not None and context.data not in chosen.takes:
        if not chosen.takes:
            raise UserError(f"{chosen.name} makes its own data: leave --data away.")
        near = did_you_mean(context.data, chosen.takes)
        raise UserError(f"{chosen.name} cannot be run on --data {context.data}: {near}")
    wanted = [context.data or name for name in chosen.takes[:1]]
    for data in chosen.reads(context) if chosen.reads else wanted:
        # What is made from others is there if they are, and takes long to make.
        source = data.removeprefix("rotated-")
        if source == "affnist" and not (data_folder(context.data_dir) / "affNIST").is_dir():
            source = "mnist"
        load(source, context.data_dir, validation=0)
