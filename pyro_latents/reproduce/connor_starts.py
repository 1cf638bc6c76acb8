"""Trainings from several starts, of which the training objective chooses one.

Where paths wind at the end of a training depends on where its networks and operators begin. A
start that leads nowhere shows early: its objective stays high in short trainings. No figure that
is reported has a part in the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import inf
from statistics import fmean
from typing import Any

from pyro_latents.errors import NotFiniteError
from pyro_latents.reproduce.experiment import Context, Job

# Epochs that an objective is the mean of.
LAST = 3


def chosen(context: Context, recipe: str, folder: str, numbers: Mapping[str, Any]) -> list[Job]:
    """Return a training for each seed, from the best of the starts that the budget has.

    Its ``starts`` are rounds, each of a number of starts and the epochs of short trainings that
    they are compared by; those with the lowest objectives go to the next one. Without rounds
    there is one start for each seed.

    Args:
        context: Of the experiment.
        recipe: Name of the recipe.
        folder: Words that tell its runs from others of the experiment.
        numbers: Hyper-parameters other than the recipe's.
    """
    rounds = context.budget.own.get("starts", ())
    first = rounds[0][0] if rounds else 1
    groups = [
        [
            context.job(recipe, f"{folder} {start}", seed=start, numbers=numbers, cost=1.0)
            for start in range(seed * first, (seed + 1) * first)
        ]
        for seed in context.seeds
    ]
    left = [count for count, _ in rounds[1:]] + [1]
    for (_, epochs), count in zip(rounds, left, strict=False):
        jobs = [job for group in groups for job in group]
        objectives = context.apply(partial(_objective, epochs=epochs), jobs)
        found = {job.folder: value for job, value in zip(jobs, objectives, strict=True)}
        groups = [sorted(group, key=lambda job: found[job.folder])[:count] for group in groups]
    return [job for (job,) in groups]


def told(context: Context) -> list[str]:
    """Return notes on the starts, none if there is one for each seed."""
    rounds = context.budget.own.get("starts", ())
    if not rounds:
        return []
    how = ", then ".join(f"{count} of {epochs} epochs" for count, epochs in rounds)
    return [f"Each training has the best of its starts by the training objective ({how})."]


def _objective(job: Job, epochs: int) -> float:
    """Train a start for some epochs, and return the training objective of the last of them.

    Of a start that leads to no finite loss it is infinite.
    """
    short = replace(job, folder=job.folder.with_name(f"{job.folder.name}-{epochs}-epochs"))
    try:
        history = short.train(epochs=epochs).folder.read_history()
    except NotFiniteError:
        return inf
    return fmean(float(row["loss"]) for row in history[-LAST:])
