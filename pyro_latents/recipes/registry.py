"""The names of all recipes: this package's, and those that other packages add."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from pyro_latents.errors import UserError
from pyro_latents.recipes.settings import Settings

STORIES = (
    "vae",
    "triplet_tvae",
    "pose_tvae",
    "vaells",
    "vaells_baselines",
    "equivae",
    "equivae_semi",
)
ENTRY_POINTS = "pyro_latents.recipes"

_REGISTERED: dict[str, Settings] = {}


def register(name: str, settings: Settings) -> None:
    """Add a recipe for this process.

    An installed package adds one for every process by an entry point in the group
    ``pyro_latents.recipes``, whose name is the recipe's and whose object is the settings.

    Raises:
        ValueError: if the name is taken.
    """
    if name in recipes():
        raise ValueError(f"a recipe named {name!r} exists already; choose another name.")
    _REGISTERED[name] = settings


def recipes() -> dict[str, Settings]:
    """The settings of every recipe, by name."""
    return {**_built_in(), **_installed(), **_REGISTERED}


def settings_of(name: str) -> Settings:
    """The settings of one recipe.

    Raises:
        UserError: if there is no such recipe; the message has the near names.
    """
    known = recipes()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown recipe {name!r}: {hint}`pyro-latents list` shows all.")
    return known[name]


@cache
def _built_in() -> dict[str, Settings]:
    found: dict[str, Settings] = {}
    for story in STORIES:
        found |= import_module(f"pyro_latents.recipes.{story}").RECIPES
    return found


@cache
def _installed() -> dict[str, Settings]:
    return {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
