"""The names of all recipes: this package's, and those that other packages add."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pyro_latents.errors import UserError
from pyro_latents.runs.catalogue import ENTRY_POINTS
from pyro_latents.stories.story import Story
from pyro_latents.text import did_you_mean

# Each has its recipes by name in RECIPES.
MODULES = (
    "vae",
    "triplet_tvae.recipes",
    "pose_tvae.recipes",
    "vaells.recipes",
    "equivae.recipes",
    "equivae.semi_supervised",
)

_REGISTERED: dict[str, Story] = {}


def register(name: str, story: Story) -> None:
    """Add a recipe for this process.

    An installed package adds one for every process by an entry point in the group
    ``pyro_latents.recipes``, whose name is the recipe's and whose object is the story.

    Raises:
        ValueError: if the name is taken, or it is no story.
    """
    if not isinstance(story, Story):
        raise ValueError(f"a recipe is a story; got {story!r}.")
    if name in recipes():
        raise ValueError(f"a recipe named {name!r} exists already; choose another name.")
    _REGISTERED[name] = story


def recipes() -> dict[str, Story]:
    """The story of every recipe, by name."""
    return {**built_in(), **installed(), **_REGISTERED}


def story_of(name: str, *, as_published: bool = False) -> Story:
    """The story of one recipe, with its default numbers; a `UserError` has the near names.

    Where we have found a training that is quicker than the published one, it is the default.
    """
    known = recipes()
    if name not in known:
        near = did_you_mean(name, known, "`pyro-latents list` shows all.")
        raise UserError(f"unknown recipe {name!r}: {near}")
    return known[name] if as_published else replace(known[name], **quicker().get(name, {}))


def stored_story(config: Mapping[str, Any], path: Path) -> Story:
    """The story of a run with the numbers in its configuration, which was read from a path.

    A `UserError` names a number that this version does not know.
    """
    story = story_of(config["recipe"], as_published=True)
    known, gone = {field.name for field in fields(story)}, story.former.items()
    given = {
        name: value for name, value in config["settings"].items() if (name, value) not in gone
    }
    for name in given:
        if name not in known:
            raise UserError(
                f"{path} has a setting {name} that this version does not know: "
                f"{did_you_mean(name, known, 'train the run anew.')}"
            )
    numbers: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    # A run from before a setting existed had its default.
    return replace(story, **numbers)


@cache
def built_in() -> dict[str, Story]:
    """The recipes of this package, as published."""
    return {name: story for module in _modules() for name, story in module.RECIPES.items()}


@cache
def quicker() -> dict[str, dict[str, Any]]:
    """What we train with otherwise, by recipe: QUICKER of the modules that have it."""
    found = [getattr(module, "QUICKER", {}) for module in _modules()]
    return {name: numbers for part in found for name, numbers in part.items()}


def _modules() -> list[Any]:
    return [import_module(f"pyro_latents.stories.{module}") for module in MODULES]


@cache
def installed() -> dict[str, Story]:
    """The recipes that other packages add; a `UserError` names one that cannot be loaded."""
    return {point.name: _load(point) for point in entry_points(group=ENTRY_POINTS)}


def _load(point: EntryPoint) -> Story:
    recipe = f"the recipe {point.name} of another package"
    try:
        story = point.load()
    except Exception as error:  # whatever goes wrong in a package of someone's
        raise UserError(
            f"{recipe} cannot be loaded from {point.value}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(story, Story):
        raise UserError(f"{recipe} is no story: {point.value}.")
    return story
