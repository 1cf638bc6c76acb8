"""What the site is made of: no page forgets a record or a recipe, and no link leads nowhere."""

import importlib
import importlib.util
import json
import re
import sys
import zlib
from pathlib import Path

import pytest

from pyro_latents import zoo

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
STORIES = [path for path in sorted((DOCS / "stories").glob("*.md")) if path.stem != "index"]
# Records of the time of steps belong to no story.
OF_STEPS = {"set-step", "unlabelled-step"}


def loaded(path):
    """A module of the site, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def directives(page, name):
    """The words that a directive of a page is given, all of them."""
    return " ".join(re.findall(rf"^```{{{name}}} (.*)$", page.read_text(), re.MULTILINE)).split()


def test_every_record_is_on_the_page_of_one_story():
    places = {}
    for page in STORIES:
        for word in directives(page, "records"):
            for path in (ROOT / "benchmarks" / "records").glob(f"{word}*.json"):
                places.setdefault(path.stem, []).append(page.stem)
    names = {path.stem for path in (ROOT / "benchmarks" / "records").glob("*.json")}
    assert names - OF_STEPS == places.keys(), "name it in ```{records} of a page in docs/stories"
    assert {name: pages for name, pages in places.items() if len(pages) > 1} == {}


def test_every_recipe_is_on_the_page_of_one_story():
    told = [name for page in STORIES for name in directives(page, "recipes")]
    assert sorted(told) == sorted({story.name for story in zoo.recipes().values()})


def test_every_story_is_on_the_page_of_all():
    text = (DOCS / "stories" / "index.md").read_text()
    assert all(f"({page.name})" in text and f"\n{page.stem}\n" in text for page in STORIES)


def test_every_tutorial_is_in_the_order_of_the_site():
    text = (DOCS / "tutorials" / "index.md").read_text()
    names = {path.stem for path in (ROOT / "tutorials").glob("[0-9]*.ipynb")}
    assert set(re.findall(r"^(\d\d_\w+)$", text, re.MULTILINE)) == names


def names_of(table):
    return [line.split()[1] for line in table.read_text().splitlines()[1:]]


@pytest.mark.parametrize("package", ["torch", "pyro"])
def test_names_of_other_packages_are_those_of_objects(package):
    for name in names_of(DOCS / "inventories" / f"{package}.txt"):
        if not name.startswith(f"{package}."):
            continue  # as it is written where it is imported
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_an_inventory_is_what_sphinx_reads():
    inventories = loaded(DOCS / "ext" / "inventories.py")
    made = inventories.inventory("torch", ["class torch.Size size.html#$"])
    head, _, rest = made.partition(b"zlib\n")
    assert head.startswith(b"# Sphinx inventory version 2\n# Project: torch\n")
    assert zlib.decompress(rest) == b"torch.Size py:class 1 size.html#$ -\n"


@pytest.fixture(scope="module")
def build():
    return loaded(DOCS / "build.py")


@pytest.mark.parametrize(
    ("link", "wrong"),
    [
        ("other.html", None),
        ("other.html#here", None),
        ("#top", None),
        ("https://example.org/nowhere", None),
        ("missing.html", "page.html: there is no missing.html"),
        ("other.html#gone", "page.html: there is no gone in other.html"),
        ("#gone", "page.html: there is no gone in "),
    ],
)
def test_a_link_that_leads_nowhere_is_named(build, tmp_path, link, wrong):
    (tmp_path / "other.html").write_text('<p id="here">')
    (tmp_path / "page.html").write_text(f'<p id="top"><a href="{link}">')
    assert list(build.dead_links(tmp_path)) == ([] if wrong is None else [wrong])


def test_a_program_is_shown_without_its_docstring(monkeypatch):
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    monkeypatch.setattr(sys, "path", [str(DOCS / "ext"), *sys.path])
    text = loaded(DOCS / "ext" / "stories.py").source("pyro_latents.models.vae:VAE.forward")
    assert text.startswith("def forward(self, x: Tensor | None = None")
    assert 'pyro.sample("z", self.prior())' in text
    assert '"""' not in text


def figures(name):
    """The cells of the chapter's table, by row and column."""
    found = json.loads((DOCS / "measured" / f"{name}.json").read_text())
    head = found["columns"][1:]
    return {row[0]: dict(zip(head, row[1:], strict=True)) for row in found["rows"]}


def number(cell):
    """The first number of a cell; one that is told by a bound is the bound."""
    return float(re.search(r"-?\d+(\.\d+)?", cell)[0])


def test_the_chapter_says_of_its_figures_what_they_are():
    found = figures("good_guide")
    guides = ["paper", "flow", "half as wide", "moved aside", "prior"]
    bound = {guide: number(found["bound"][guide]) for guide in guides}
    assert max(bound, key=bound.get) == "flow"
    assert min(bound, key=bound.get) == "prior"
    # What spoils a guide lowers its bound, and spoils the weights of every image.
    for guide in guides[2:]:
        assert bound[guide] < bound["paper"]
        assert found["k-hat above 0.7"][guide] == "100 %"
    # Annealing begins with any guide, and comes to one figure.
    annealed = [number(found["annealed"][guide]) for guide in guides]
    assert max(annealed) - min(annealed) < 0.5
    assert all(number(found["IWAE, 1000 draws"][guide]) <= max(annealed) for guide in guides)
    less = {guide: number(found["annealed less the bound"][guide]) for guide in guides}
    assert less["flow"] < 1 < less["paper"]
    assert less["prior"] > 24
    assert abs(number(found["IWAE, 1000 draws"]["prior"]) - max(annealed)) < 1
    # Coverage alone is high for a guide that is wide.
    covered = {guide: number(found["90 % interval covers"][guide]) for guide in guides}
    assert covered["prior"] > covered["paper"]
    # The prior is calibrated, and the guide that is moved aside is not symmetric.
    assert number(found["calibration, p"]["prior"]) > 0.05
    assert number(found["its symmetry, p"]["moved aside"]) <= 0.01
    assert number(found["spread"]["half as wide"]) < 0.7
    assert number(found["centre off by"]["moved aside"]) > 0.5
