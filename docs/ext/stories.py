"""Directives of the pages on stories: all that they show is read off the package and its records.

==================  =============================================================================
``process``         the sites of a recipe's model, what depends on what, as a picture
``source-of``       the source of a function, without its docstring
``guides``          the guides of a recipe: their classes, and what these say of themselves
``recipes``         the recipes of a story, and by which numbers they differ
``options``         the numbers of a story alone, with what its docstrings say of them
``records``         what was measured: the records whose names begin with one of some words
``weights``         the cards of the weights of some stories that come with the package
==================  =============================================================================
"""

import ast
import importlib.util
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from pyro_latents import zoo
from pyro_latents.commands import _numbers
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import Family
from pyro_latents.programs import evaluation_mode
from pyro_latents.runs.folder import RunFolder
from pyro_latents.runs.model_graph import model_graph
from pyro_latents.runs.weights import PACKAGED
from pyro_latents.stories.story import Story

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "benchmarks" / "records"
# Of a batch that a model is looked at with.
POINTS = 8
# Records with more rows are opened by hand.
ROWS = 12


class Shown(SphinxDirective):
    """A directive whose argument is words, and whose content is Markdown that it makes of them."""

    required_arguments = 1
    final_argument_whitespace = True
    # Of the box around, for the style sheet.
    classes: ClassVar[tuple[str, ...]] = ()
    # What the pages are made of: Sphinx reads a page anew where one of them has changed.
    made_of: ClassVar[tuple[Path, ...]] = (ROOT / "pyro_latents", ROOT / "models", ROOT / "guides")

    def run(self) -> list[nodes.Node]:
        """Make the Markdown and read it."""
        for folder in self.made_of:
            for path in folder.rglob("*.*"):
                if path.suffix in (".py", ".json"):
                    self.env.note_dependency(str(path))
        box = nodes.container(classes=list(self.classes))
        lines = "\n".join(self.lines(*self.arguments[0].split())).splitlines()
        self.state.nested_parse(StringList(lines, "generated"), self.content_offset, box)
        return [box] if self.classes else box.children

    def lines(self, *words: str) -> Iterator[str]:
        """Return the Markdown."""
        raise NotImplementedError


class Process(Shown):
    """The graph of a model."""

    def lines(self, recipe: str) -> Iterator[str]:
        """Return the picture."""
        parts = zoo.recipe(recipe)
        with evaluation_mode(parts.model):
            drawn = model_graph(parts.model, *parts.first_batch("train", size=POINTS))
        yield from ("```{raw} html", f'<div class="process">{drawn}</div>', "```")


class Source(Shown):
    """The source of a function, ``package.module:Class.function``."""

    def lines(self, path: str) -> Iterator[str]:
        """Return the source without the docstring."""
        yield from ("```python", source(path), "```")


class Guides(Shown):
    """The guides of a recipe."""

    def lines(self, recipe: str) -> Iterator[str]:
        """Return a table with a row for each."""
        rows = [(f"`{name}`", *told_of(recipe, name)) for name in zoo.recipes()[recipe].guides]
        yield from table(("`--guide`", "made of", "what it is"), rows)


class Recipes(Shown):
    """The recipes of some stories."""

    def lines(self, *stories: str) -> Iterator[str]:
        """Return a table with a row for each recipe."""
        rows = []
        for name, story in zoo.recipes().items():
            if story.name in stories:
                base = type(story)(data=story.data)
                own = [f for f in fields(story) if f.metadata.get("option", True)]
                changed = [
                    f"{f.name.replace('_', '-')} {shown(getattr(story, f.name))}"
                    for f in own
                    if f.name != "data" and getattr(story, f.name) != getattr(base, f.name)
                ]
                rows.append((f"`{name}`", story.data, ", ".join(changed)))
        yield from table(("recipe", "data", "other than the story's defaults"), rows)


class Options(Shown):
    """The numbers that a recipe has beside those of every story."""

    def lines(self, recipe: str) -> Iterator[str]:
        """Return a table with a row for each option."""
        shared = {f.name for f in fields(Story)}
        rows = [
            (f"`--{name}`", shown(default), meaning.replace("%%", "%"))
            for name, _, default, meaning in _numbers(zoo.recipes()[recipe])
            if name.replace("-", "_") not in shared
        ]
        yield from table(("option", "default", "what it is"), rows)


class Records(Shown):
    """The records whose names begin with one of some words."""

    made_of = (RECORDS,)

    def lines(self, *words: str) -> Iterator[str]:
        """Return each record: its title, its table, and what printed it."""
        for name in named(words):
            kept = escaped(json.loads((RECORDS / f"{name}.json").read_text()))
            # The first line of a block is a mark, and so is the last.
            block = recorder().block(name, kept).splitlines()[1:-1]
            title = kept.get("title", titled(name))
            long = len(kept["rows"]) > ROWS
            yield from ("```{raw} html", f"<details{'' if long else ' open'}>")
            yield from (f"<summary>{title}</summary>", "```", "")
            yield from (line for line in block if line != f"{title}.")
            yield from ("", "```{raw} html", "</details>", "```", "")


class Weights(Shown):
    """The weights of some stories that come with the package."""

    made_of = (PACKAGED,)

    def lines(self, *stories: str) -> Iterator[str]:
        """Return how they are opened, and the card of each; or that there are none."""
        named = [
            name
            for name in zoo.pretrained_names()
            if zoo.recipes()[RunFolder(PACKAGED / name).read_config()["recipe"]].name in stories
            and (PACKAGED / name / "card.md").exists()
        ]
        if not named:
            yield "None of this story come with the package."
            return
        yield "Opened without a training and without a network, for every verb of a run:"
        yield from ("", "```python", f'run = zoo.pretrained("{named[-1]}")', "```", "")
        for name in named:
            card = (PACKAGED / name / "card.md").read_text().partition("\n")[2]
            yield from ("```{raw} html", f"<details><summary>{name}</summary>", "```", "")
            # Its headings are no parts of the page.
            yield from (re.sub(r"^#+ (.*)$", r"**\1**", line) for line in card.splitlines())
            yield from ("", "```{raw} html", "</details>", "```", "")


def source(path: str) -> str:
    """Return the source of ``package.module:Class.function`` without its docstring."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    text = textwrap.dedent(inspect.getsource(found))
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    told = function.body[0]
    lines = text.splitlines()
    if isinstance(told, ast.Expr) and isinstance(told.value, ast.Constant):
        del lines[told.lineno - 1 : told.end_lineno]
    return "\n".join(lines)


def told_of(recipe: str, name: str) -> tuple[str, str]:
    """Return the classes that a guide is made of, and the first sentence of their docstrings."""
    guide = zoo.recipe(recipe, guide=name).guide
    families = {type(part): None for part in guide.modules() if isinstance(part, Family)}
    links = ", ".join(
        f"{{py:class}}`~{kind.__module__}.{kind.__qualname__}`"
        for kind in (type(guide), *families)
    )
    # What is said of an amortised guide is what is said of its family.
    told = next(iter(families)) if isinstance(guide, Amortised) else type(guide)
    return links, (inspect.getdoc(told) or "").splitlines()[0].replace("|", r"\|")


def named(words: Iterable[str]) -> list[str]:
    """Return the names of the records that begin with one of some words, in their order."""
    names = sorted(path.stem for path in RECORDS.glob("*.json"))
    return [name for word in words for name in names if name.startswith(word)]


def escaped(kept: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose cells have no sign that would end a cell."""

    def cell(found: Any) -> Any:
        return found.replace("|", r"\|") if isinstance(found, str) else found

    rows = [[cell(found) for found in row] for row in kept["rows"]]
    return {**kept, "columns": [cell(found) for found in kept["columns"]], "rows": rows}


def titled(name: str) -> str:
    """Return what a record is called that has no title."""
    kind, _, recipe = name.partition("-")
    return {
        "compare": f"Guides of {recipe}, side by side",
        "check": f"Predictive checks of {recipe}",
    }.get(kind, name)


@cache
def recorder() -> Any:
    """Return the module that writes RESULTS.md."""
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(value: Any) -> str:
    """Return a number or word as a reader would give it on the command line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Return the lines of a table in Markdown."""
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    for name, kind in {
        "process": Process,
        "source-of": Source,
        "guides": Guides,
        "recipes": Recipes,
        "options": Options,
        "records": Records,
        "weights": Weights,
    }.items():
        app.add_directive(name, kind)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
