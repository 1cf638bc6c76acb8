"""The names of all recipes: this package's, and those that other packages add."""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

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


def story_of(name: str) -> Story:
    """The story of one recipe, with its default numbers; a `UserError` has the near names."""
    known = recipes()
    if name not in known:
        near = did_you_mean(name, known, "`pyro-latents list` shows all.")
        raise UserError(f"unknown recipe {name!r}: {near}")
    return known[name]


@cache
def built_in() -> dict[str, Story]:
    """The recipes of this package."""
    modules = [import_module(f"pyro_latents.stories.{module}") for module in MODULES]
    return {name: story for module in modules for name, story in module.RECIPES.items()}


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
