"""The zoo: every recipe by its name, and the runs they left.

Example:
    >>> from pyro_latents import zoo
    >>> recipe = zoo.recipe("vae-digits", seed=0)
    >>> type(recipe.model).__name__, type(recipe.loss).__name__
    ('VAE', 'TraceMeanField_ELBO')
"""

from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pyro_latents.errors import UserError
from pyro_latents.recipes.recipe import Recipe, Run
from pyro_latents.recipes.registry import recipes, register, settings_of

__all__ = ["Recipe", "Run", "open_run", "recipe", "recipes", "register"]


def recipe(
    name: str,
    *,
    guide: str | Callable | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    limit_train: int | None = None,
    **settings: Any,
) -> Recipe:
    """Build a recipe.

    Args:
        name: Its name, as in `pyro-latents list`.
        guide: The name of one of its guides, or a guide of your own; the paper's by default.
        seed: Of the initial parameters, the batches and all draws.
        data_dir: Where data sets lie; None for ``PYRO_LATENTS_DATA``.
        limit_train: Training points to use, None for all.
        **settings: Hyper-parameters other than the paper's, such as ``z_dim=20``.

    Raises:
        UserError: if the recipe, the guide or a setting is not known.
    """
    known = settings_of(name)
    names = [field.name for field in fields(known)]
    for setting in settings:
        if setting not in names:
            near = get_close_matches(setting, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}."
            raise UserError(f"{name} has no setting {setting!r}: {hint}")
    return Recipe(
        name,
        replace(known, **settings),
        guide=guide,
        seed=seed,
        data_dir=data_dir,
        limit_train=limit_train,
    )


def open_run(path: str | Path) -> Run:
    """Open the folder of a trained run.

    Raises:
        UserError: if it is not one.
    """
    return Run(path)
