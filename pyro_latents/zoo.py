"""The zoo: every recipe by its name, and the runs they left.

Example:
    >>> from pyro_latents import zoo
    >>> recipe = zoo.recipe("vae-digits", seed=0)
    >>> type(recipe.model).__name__, type(recipe.loss).__name__
    ('VAE', 'TraceAnalytic_ELBO')
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pyro_latents.errors import UserError
from pyro_latents.fields import plain
from pyro_latents.runs.recipe import Recipe, Run
from pyro_latents.runs.registry import recipes, register, story_of
from pyro_latents.text import did_you_mean

__all__ = ["Recipe", "Run", "open_run", "recipe", "recipes", "register"]


def recipe(
    name: str,
    *,
    guide: str | Callable | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    limit_train: int | None = None,
    **numbers: Any,
) -> Recipe:
    """Build a recipe.

    Args:
        name: Its name, as in `pyro-latents list`.
        guide: The name of one of its guides, or a guide of your own; the paper's by default.
        seed: Of the initial parameters, the batches and all draws.
        data_dir: Where data sets lie; None for ``PYRO_LATENTS_DATA``.
        limit_train: Training points to use, None for all.
        **numbers: Hyper-parameters other than the paper's, such as ``z_dim=20``.

    Raises:
        UserError: if the recipe, the guide or a hyper-parameter is not known.
    """
    story = story_of(name)
    known = [field.name for field in fields(story)]
    for number in numbers:
        if number not in known:
            raise UserError(f"{name} has no setting {number!r}: {did_you_mean(number, known)}")
    return Recipe(
        name,
        replace(story, **{number: plain(value) for number, value in numbers.items()}),
        guide=guide,
        seed=plain(seed),
        data_dir=data_dir,
        limit_train=plain(limit_train),
    )


def open_run(path: str | Path, *, data_dir: str | Path | None = None) -> Run:
    """Open the folder of a trained run.

    Args:
        path: The folder.
        data_dir: Where its data set lies now, None for where it lay.

    Raises:
        UserError: if it is not one.
    """
    return Run(path, data_dir=data_dir)
