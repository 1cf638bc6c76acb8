"""The commands of the program: what each reads from the command line, and what it calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, NoReturn, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser

from pyro_latents.errors import UserError
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


def _list(parser: Parser, arguments: list[str]) -> None:
    parser.parse_args(arguments)
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

    name, *rest = arguments
    story = story_of(name)
    parser = Parser(prog=f"{prog} {name}", description=f"Train {name} ({story.paper}).")
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    parser.add_argument("--guide", type=str, default=story.guides[0], help=", ".join(story.guides))
    parser.add_argument("--steps", type=int, default=None, help="gradient steps, not epochs")
    parser.add_argument("--limit-train", type=int, default=None, help="training points to use")
    _add_data_dir(parser)
    parser.add_argument(
        "--out", type=str, default=None, help="the run folder (default: runs/NAME)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of parameters, batches and draws")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--devices", type=int, default=1, help="devices of a machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines, started by a cluster")
    parser.add_argument("--accelerator", type=str, default="auto", help="auto, cpu or gpu")
    parser.add_argument("--precision", type=str, default="32-true", help="such as bf16-mixed")
    parser.add_argument("--compile", action="store_true", help="compile encoders and decoders")
    parser.add_argument("--tensorboard", action="store_true", help="write its event files too")
    numbers = _add_numbers(parser, story)
    given = parser.parse_args(rest)
    for flag in ("resume", "compile", "tensorboard"):
        # A file may have anything in their place.
        if not isinstance(given[flag], bool):
            raise UserError(f"--{flag} must be true or false; got {given[flag]!r}.")
    if given.out == "":
        raise UserError("--out is empty: name the folder to write.")
    if given.resume and given.out is None:
        raise UserError("--resume goes on with a run: name its folder with --out.")
    if given.steps is not None and given.epochs != story.epochs:
        raise UserError("give either --epochs or --steps.")
    recipe = zoo.recipe(
        name,
        guide=given.guide,
        seed=given.seed,
        data_dir=given.data_dir,
        limit_train=given.limit_train,
        **{number: given[number] for number in numbers},
    )
    began = time.perf_counter()
    options = ["steps", "resume", "devices", "nodes", "accelerator", "precision"]
    options += ["compile", "tensorboard"]
    run = recipe.train(given.out, **{option: given[option] for option in options})
    from pyro_latents.training.report import summary

    last = summary(run.folder.read_history()[-1])
    print(f"{last}, {time.perf_counter() - began:.0f} s: {run.path}")


def _evaluate(parser: Parser, arguments: list[str]) -> None:
    parser.add_argument("--particles", type=int, default=1000, help="importance samples")
    parser.add_argument("--limit-test", type=int, default=None, help="test points to use")
    parser.add_argument(
        "--likelihood-points", type=int, default=1000, help="test points of log_likelihood"
    )
    run, given = _open(parser, arguments)
    metrics = run.evaluate(
        particles=given.particles,
        likelihood_points=given.likelihood_points,
        limit_test=given.limit_test,
    )
    cells = [(name, f"{v:.4f}" if isinstance(v, float) else str(v)) for name, v in metrics.items()]
    print(aligned(cells))
    print(f"written to {run.folder.metrics_path}")


def _check(parser: Parser, arguments: list[str]) -> None:
    parser.add_argument("--images", type=int, default=1000, help="test points to check")
    parser.add_argument("--draws", type=int, default=200, help="replicates of each")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    run, given = _open(parser, arguments)
    from pyro_latents.runs.checking import check

    paths = check(run, images=given.images, draws=given.draws, seed=given.seed)
    print(paths[-1].read_text())
    for path in paths:
        print(path)


def _compare(parser: Parser, arguments: list[str]) -> None:
    parser.add_argument("runs", nargs="+", help="folders of the runs")
    parser.add_argument("--particles", type=int, default=1000, help="importance samples")
    parser.add_argument("--points", type=int, default=100, help="test points to measure on")
    parser.add_argument("--out", type=str, default="comparison", help="the folder to write")
    _add_data_dir(parser)
    given = parser.parse_args(arguments)
    from pyro_latents import zoo
    from pyro_latents.runs.comparison import check_free, compare

    check_free(Path(given.out))
    runs = [zoo.open_run(path, data_dir=given.data_dir) for path in given.runs]
    comparison = compare(runs, particles=given.particles, points=given.points)
    print(comparison.as_text())
    for path in comparison.write(Path(given.out)):
        print(f"written to {path}")


def _calibrate(parser: Parser, arguments: list[str]) -> None:
    parser.add_argument(
        "--points", type=int, default=None, help="data points to simulate (default: up to 500)"
    )
    parser.add_argument("--draws", type=int, default=200, help="of the guide for each of them")
    run, given = _open(parser, arguments)
    p_values, path = run.calibrate(points=given.points, draws=given.draws)
    for name, value in p_values.items():
        print(f"calibration_p_{name}  {value:.4g}")
    print(f"written to {path} and {run.folder.metrics_path}")


def _plot(parser: Parser, arguments: list[str]) -> None:
    run, _ = _open(parser, arguments)
    for path in run.plot():
        print(path)


def _report(parser: Parser, arguments: list[str]) -> None:
    run, _ = _open(parser, arguments)
    from pyro_latents.runs.report import report

    print(report(run))


def _reproduce(parser: Parser, arguments: list[str]) -> None:
    parser.add_argument("table", nargs="?", help="its name; without one, all are listed")
    parser.add_argument(
        "--budget", type=str, default="paper", help="quick (minutes), hours or paper"
    )
    parser.add_argument("--data", type=str, default=None, help="another data set than the paper's")
    _add_data_dir(parser)
    parser.add_argument(
        "--out", type=str, default=None, help="folder to write (default: results/TABLE)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    given = parser.parse_args(arguments)
    from pyro_latents.reproduce.tables import experiments, reproduce

    if given.table is None:
        print(aligned([(name, found.summary) for name, found in experiments().items()]))
        return
    out = Path(given.out or Path("results") / given.table)
    asked = {key: given[key] for key in ("budget", "data", "data_dir", "seed")}
    result = reproduce(given.table, out=out, **asked)
    print(result.as_markdown())
    print(f"written to {out / given.table}.json")


@dataclass(frozen=True)
class Command:
    """One command of the program: what it does in words, and what runs it."""

    summary: str
    run: Callable[[Parser, list[str]], None]


COMMANDS = {
    "list": Command("show the recipes: story, data, guides, paper", _list),
    "train": Command("train a recipe into a run folder", _train),
    "evaluate": Command("measure a run on test data", _evaluate),
    "check": Command("check a run by posterior and prior predictive draws", _check),
    "compare": Command("set runs with different guides side by side", _compare),
    "calibrate": Command("check a run's guide on data simulated from its model", _calibrate),
    "plot": Command("draw the figures of a run", _plot),
    "report": Command("write one self-contained page on a run", _report),
    "reproduce": Command("run a table or figure of one of the papers", _reproduce),
}


def _open(parser: Parser, arguments: list[str]) -> tuple[Any, Any]:
    """Read the arguments of a command on one run, and open the run."""
    parser.add_argument("run", help="folder of the run")
    _add_data_dir(parser)
    given = parser.parse_args(arguments)
    from pyro_latents import zoo

    run = zoo.open_run(given.run, data_dir=given.data_dir)
    run.folder.check_writable()
    return run, given


def _add_data_dir(parser: Parser) -> None:
    parser.add_argument("--data-dir", type=str, default=None, help="folder of the data sets")


def _add_numbers(parser: Parser, story: Any) -> list[str]:
    """Give the parser an option for each hyper-parameter, and return their names."""
    kind = type(story)
    hints = get_type_hints(kind)
    meanings = {
        parameter.arg_name: parameter.description
        for ancestor in reversed(kind.__mro__)
        for parameter in parse_docstring(ancestor.__doc__ or "").params
    }
    names = [field.name for field in fields(story)]
    for name in names:
        # Choices are the story's to check, which names the near ones.
        hint = str if get_origin(hints[name]) is Literal else hints[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=hint,
            default=getattr(story, name),
            help=" ".join((meanings.get(name) or "").split()).replace("%", "%%"),
        )
    return names
