"""The commands of the program: what each reads from the command line, and what it calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, NoReturn, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser

from pyro_latents.errors import UserError
from pyro_latents.files import check_writable, first_free
from pyro_latents.text import aligned, did_you_mean

# What jsonargparse calls the kinds of values, and what people do.
IN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "tuple": "values in brackets",
}
LONGEST = 300


class Parser(ArgumentParser):
    """A parser whose complaints are one line, like all others of this program.

    Options are written in full: `--z` is a mistake and not `--z-dim`.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Read the arguments; a file of them that is no text is a mistake like any other."""
        try:
            return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError as error:
            raise UserError("the file of --config is no text; write it as YAML.") from error
        except RecursionError as error:
            raise UserError("the file of --config refers to itself.") from error

    def print_help(self, file: Any = None) -> None:
        """Print it, or raise where it cannot be printed, which argparse passes over."""
        print(self.format_help(), end="", file=file, flush=True)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        line = " ".join(message.split())
        if found := re.match(r'Parser key "(\w+)": (.*)', line):
            line = f"--{found[1].replace('_', '-')}: {found[2]}"
        for kind, words in IN_WORDS.items():
            line = line.replace(f"Expected a <class '{kind}'>. Got value:", f"give {words}; got")
        if found := re.match(r"unrecognized arguments: (--[\w-]+)", line):
            line = f"{line}: {did_you_mean(found[1], self._options(), 'there is no such option')}"
        if found := re.match(r"Option '([\w.]+)' is not accepted", line):
            near = did_you_mean(f"--{found[1].replace('_', '-')}", self._options(), "see --help")
            line = f"--config has an unknown option {found[1]}: {near}"
        if line.startswith(("Problems parsing", "Unexpected config")):
            line = f"--config cannot be read as options: {line}"
        line = line if len(line) < LONGEST else f"{line[:LONGEST]}..."
        raise UserError(f"{line.rstrip('.?')}; see `{self.prog} --help`.")

    def _options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]


# The name of an option, its kind (None for a flag), its default, and what it is.
Option = tuple[str, type | None, Any, str]
DATA_DIR: Option = ("data-dir", str, None, "folder of the data sets")
DATA: Option = ("data", str, None, "other data than those of the training")
PARTICLES: Option = ("particles", int, 1000, "importance samples")
TRAINING: tuple[Option, ...] = (
    ("model-from", str, None, "a run, or pretrained weights, whose model stays, for a new guide"),
    ("steps", int, None, "gradient steps, not epochs"),
    ("limit-train", int, None, "training points to use"),
    DATA_DIR,
    ("out", str, None, "the run folder (default: runs/NAME)"),
    ("seed", int, 0, "of parameters, batches and draws"),
    ("as-published", None, False, "train as the paper does"),
    ("resume", None, False, "go on with the run in --out"),
    ("devices", int, 1, "devices of a machine"),
    ("nodes", int, 1, "machines, started by a cluster"),
    ("accelerator", str, "auto", "auto, cpu or gpu"),
    ("precision", str, "32-true", "such as bf16-mixed"),
    ("eager", None, False, "run every step by Pyro, capture none"),
    ("tensorboard", None, False, "write its event files too"),
)


@dataclass(frozen=True)
class Command:
    """One command of the program: what it does in words, and what runs it."""

    summary: str
    run: Callable[[Parser, list[str]], None]


COMMANDS: dict[str, Command] = {}


def _command(summary: str, *options: Option, **positional: Any) -> Callable:
    """Make a function of options, and of what is given without a name, the command of its name.

    The folder of a ``run`` is opened, and must be writable where there is no ``out``.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        def run(parser: Parser, arguments: list[str]) -> None:
            for name, how in positional.items():
                parser.add_argument(name, **how)
            given = _read(parser, arguments, *options)
            if "run" in given:
                from pyro_latents import zoo

                where = {name: given.pop(name) for name in ("data", "data_dir")}
                given["run"] = zoo.open_run(given["run"], **where)
                if not given.get("out"):
                    check_writable(given["run"].path, "copy the run to where it can be")
            function(**given)

        COMMANDS[function.__name__.strip("_")] = Command(summary, run)
        return function

    return add


def _on_run(summary: str, *options: Option) -> Callable:
    words = {"help": "folder of the run, or name of pretrained weights"}
    return _command(summary, *options, DATA, DATA_DIR, run=words)


def _read(parser: Parser, arguments: list[str], *options: Option) -> dict[str, Any]:
    for name, kind, default, words in options:
        how: Any = {"action": "store_true"} if kind is None else {"type": kind, "default": default}
        parser.add_argument(f"--{name}", help=words, **how)
    return parser.parse_args(arguments).as_dict()


@_command("show the recipes: story, data, guides, paper")
def _list() -> None:
    from pyro_latents.runs.catalogue import ENTRY_POINTS, rows

    shown = [("recipe", "story", "data", "guides", "paper"), *rows()]
    if entry_points(group=ENTRY_POINTS):
        # Those of others are objects, which only their packages can tell of.
        from pyro_latents.runs.registry import installed

        for name, story in installed().items():
            shown.append((name, story.name, story.data, ", ".join(story.guides), story.paper))
    print(aligned(shown))


def _train(parser: Parser, arguments: list[str]) -> None:
    prog = parser.prog
    if not arguments or arguments[0].startswith("-"):
        if set(arguments) & {"-h", "--help"}:
            print(f"usage: {prog} RECIPE [options]; `{prog} RECIPE --help` shows its options,")
            print("and `pyro-latents list` the recipes.")
            return
        raise UserError("train which recipe? Give its name first; `pyro-latents list` shows all.")
    from pyro_latents import zoo
    from pyro_latents.runs.registry import story_of
    from pyro_latents.training.report import summary

    name, *rest = arguments
    story = story_of(name)
    parser = Parser(prog=f"{prog} {name}", description=f"Train {name} ({story.paper}).")
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    words = f"{', '.join(story.guides)}, or one of your own, package.module:NAME"
    guide = ("guide", str, story.guides[0], words)
    given = _read(parser, rest, guide, *TRAINING, *_numbers(story))
    # A file may have anything in its place.
    if not isinstance(given["resume"], bool):
        raise UserError(f"--resume must be true or false; got {given['resume']!r}.")
    if given["out"] == "":
        raise UserError("--out is empty: name the folder to write.")
    if given["resume"] and given["out"] is None:
        raise UserError("--resume goes on with a run: name its folder with --out.")
    asked = parser.parse_args(rest, defaults=False).as_dict()
    if given["steps"] is not None and "epochs" in asked:
        raise UserError("give either --epochs or --steps.")
    numbers = {f.name: given.pop(f.name) for f in fields(story) if f.name in given}
    # Those that are not asked for are those of the recipe, or of the run that the model is from.
    numbers = {number: value for number, value in numbers.items() if number in asked}
    of_recipe = ("guide", "model_from", "seed", "data_dir", "limit_train", "as_published")
    recipe = zoo.recipe(name, **numbers, **{option: given.pop(option) for option in of_recipe})
    began = time.perf_counter()
    given.pop("config")
    run = recipe.train(**given)
    last = summary(run.folder.read_history()[-1])
    print(f"{last}, {time.perf_counter() - began:.0f} s: {run.path}")


COMMANDS["train"] = Command("train a recipe into a run folder", _train)


@_on_run(
    "measure a run on test data",
    PARTICLES,
    ("limit-test", int, None, "test points to use"),
    ("likelihood-points", int, 1000, "test points of log_likelihood"),
    ("evidence", str, "iwae", "iwae, ais for a bound, or interval for its width too"),
    ("annealed-points", int, 100, "points of ais and interval"),
    ("chains", int, 8, "of each of them"),
    ("temperatures", int, 100, "from guide to posterior"),
)
def _evaluate(run: Any, **options: Any) -> None:
    from pyro_latents.runs.units import row

    print(aligned(row(name, value) for name, value in run.evaluate(**options).items()))
    print(f"written to {run.folder.metrics_path}")


@_on_run(
    "check a run by posterior and prior predictive draws",
    ("images", int, 1000, "test points to check"),
    ("draws", int, 200, "replicates of each"),
    ("seed", int, 0, "of the draws"),
)
def _check(run: Any, **options: Any) -> None:
    from pyro_latents.runs.checking import check

    paths = check(run, **options)
    print(paths[-1].read_text())
    print(*paths, sep="\n")


@_command(
    "set runs with different guides side by side",
    PARTICLES,
    ("points", int, 100, "test points to measure on"),
    ("evidence", str, "iwae", "iwae, or ais to anneal beside it"),
    ("out", str, None, "the folder to write (default: comparison)"),
    DATA_DIR,
    DATA,
    runs={"nargs": "+", "help": "folders of the runs, or names of pretrained weights"},
)
def _compare(
    runs: list[str], out: str | None, data_dir: str | None, data: str | None, **options: Any
) -> None:
    from pyro_latents import zoo
    from pyro_latents.runs.comparison import check_free, compare

    folder = first_free("comparison") if out is None else Path(out)
    check_free(folder)
    opened = [zoo.open_run(path, data_dir=data_dir, data=data) for path in runs]
    comparison = compare(opened, **options)
    print(comparison.as_text())
    for path in comparison.write(folder):
        print(f"written to {path}")


@_on_run(
    "check a run's guide on data simulated from its model",
    ("points", int, None, "data points to simulate (default: up to 500)"),
    ("draws", int, 200, "of the guide for each of them"),
)
def _calibrate(run: Any, **options: Any) -> None:
    p_values, path = run.calibrate(**options)
    from pyro_latents.runs.units import p_value

    for site in p_values:
        for name in (f"calibration_p_{site}", f"calibration_p_symmetric_{site}"):
            print(f"{name}  {p_value(run.metrics[name])}")
    print(f"written to {path} and {run.folder.metrics_path}")


@_on_run(
    "draw reference posteriors of a run's model by HMC",
    ("images", int, 20, "test images, the first ones"),
    ("chains", int, 8, "of each image"),
    ("draws", int, 200, "of each chain"),
    ("temperatures", int, 100, "from guide to posterior"),
)
def _reference(run: Any, **options: Any) -> None:
    from pyro_latents.runs.references import reference

    written = reference(run, **options)
    print(aligned(written.as_rows()))
    print(f"written to {written.path}")


@_on_run("draw the figures of a run")
def _plot(run: Any) -> None:
    print(*run.plot(), sep="\n")


@_on_run(
    "write one self-contained page on a run, in which its story moves",
    ("out", str, None, "the page to write (default: RUN/report.html)"),
)
def _report(run: Any, out: str | None) -> None:
    print(run.report(out))


@_on_run(
    "write the trained model and guide of a run into a folder of their own",
    ("out", str, None, "the folder to write (default: RUN-export)"),
    ("half", None, False, "keep 16 bits of each number"),
)
def _export(run: Any, out: str | None, half: bool) -> None:
    whole = run.training_path.resolve()
    folder = first_free(whole.with_name(f"{whole.name}-export")) if out is None else Path(out)
    print(run.export(folder, half=half))


@_command(
    "show the weights that come with the package, or the card of some",
    name={"nargs": "?", "help": "their name, such as vae-mnist; without one, all are listed"},
)
def _pretrained(name: str | None) -> None:
    from pyro_latents.runs.card import rows
    from pyro_latents.runs.weights import pretrained_card

    print(aligned(rows()) if name is None else pretrained_card(name).rstrip())


@_command(
    "run a table or figure of one of the papers",
    ("budget", str, "paper", "quick (minutes), hours or paper"),
    ("data", str, None, "another data set than the paper's"),
    DATA_DIR,
    ("out", str, None, "folder to write (default: results/TABLE)"),
    ("seed", int, 0, "of everything that is drawn"),
    ("precision", str, "32-true", "of the trainings, such as bf16-mixed"),
    table={"nargs": "?", "help": "its name; without one, all are listed"},
)
def _reproduce(table: str | None, out: str | None, **options: Any) -> None:
    from pyro_latents.reproduce.tables import experiments, reproduce

    if table is None:
        print(aligned([(name, found.summary) for name, found in experiments().items()]))
        return
    folder = Path(out or Path("results") / table)
    print(reproduce(table, out=folder, **options).as_markdown())
    print(f"written to {folder / table}.json")


def _numbers(story: Any) -> Iterator[Option]:
    """An option for each hyper-parameter, with what the docstrings say of it."""
    kind = type(story)
    hints = get_type_hints(kind)
    meanings = {
        parameter.arg_name: parameter.description or ""
        for ancestor in reversed(kind.__mro__)
        for parameter in parse_docstring(ancestor.__doc__ or "").params
    }
    for name in [field.name for field in fields(story) if field.metadata.get("option", True)]:
        # Choices are the story's to check, which names the near ones.
        hint = str if get_origin(hints[name]) is Literal else hints[name]
        meaning = " ".join(meanings.get(name, "").split()).replace("%", "%%")
        yield name.replace("_", "-"), hint, getattr(story, name), meaning
