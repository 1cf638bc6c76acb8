import subprocess
import sys

import pytest

from pyro_latents import commands
from pyro_latents.cli import main
from pyro_latents.errors import UserError
from pyro_latents.runs import catalogue, registry
from pyro_latents.stories.vae import VAEStory


def test_the_catalogue_says_what_the_stories_say():
    theirs = [
        (name, story.name, story.data, ", ".join(story.guides), story.paper)
        for name, story in registry.built_in().items()
    ]
    assert list(catalogue.rows()) == theirs


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["train", "--help"]], ids=" ".join)
def test_what_is_only_shown_imports_no_torch(arguments):
    code = (
        f"import sys; from pyro_latents.cli import main; main({arguments});"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "False False"


class Point:
    name, value = "vae-elsewhere", "elsewhere:STORY"

    def __init__(self, load):
        self.load = load


@pytest.fixture
def install(monkeypatch):
    """Return what puts an entry point in the place of those that are installed."""

    def put(load):
        for module in (commands, registry):
            monkeypatch.setattr(module, "entry_points", lambda group: [Point(load)])

    registry.installed.cache_clear()
    yield put
    registry.installed.cache_clear()


def test_recipes_of_other_packages_are_listed(install, capsys):
    install(lambda: VAEStory(data="digits", z_dim=3))
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == [
        "vae-elsewhere",
        "vae",
        "digits",
    ]


def test_a_package_that_cannot_be_imported_is_named(install):
    def broken():
        raise ImportError("no elsewhere")

    install(broken)
    with pytest.raises(UserError, match="vae-elsewhere of another package cannot be loaded from"):
        registry.installed()


def test_an_entry_point_that_is_no_story_is_named(install):
    install(lambda: "a word")
    with pytest.raises(UserError, match="vae-elsewhere of another package is no story"):
        registry.installed()
