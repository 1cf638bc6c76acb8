"""The command line, `pyro-latents`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser

import pyro_latents
from pyro_latents.errors import UserError
from pyro_latents.memory import keep_freed_memory

COMMANDS = {
    "list": "show the recipes: story, data, guides, paper",
    "train": "train a recipe into a run folder",
    "evaluate": "measure a run on test data",
    "check": "check a run by posterior and prior predictive draws",
    "compare": "set runs with different guides side by side",
    "calibrate": "check a run's guide on data simulated from its model",
    "plot": "draw the figures of a run",
    "report": "write one self-contained page on a run",
    "reproduce": "run a table or figure of one of the papers",
}


class Parser(ArgumentParser):
    """A parser whose complaints are one line, like all others of this program.

    Options are written in full: `--z` is a mistake and not `--z-dim`.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        line = " ".join(message.split())
        line = re.sub(r'Parser key "(\w+)":', lambda m: f"--{m[1].replace('_', '-')}:", line)
        raise UserError(f"{line}; see `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 for a mistake of the user's."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    try:
        return _run(arguments)
    except UserError as error:
        print(f"pyro-latents: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pyro-latents: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough; what Python still holds cannot be written.
        sys.stderr.close()
        return 0


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"pyro-latents {pyro_latents.__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        near = get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
        raise UserError(f"unknown command {command!r}: {hint}")
    globals()[f"_{command}"](rest)
    return 0


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            f"pyro-latents {pyro_latents.__version__}: {pyro_latents.__doc__}",
            "",
            "usage: pyro-latents COMMAND ...",
            "",
            *lines,
            "",
            "`pyro-latents COMMAND --help` shows the options of a command.",
        ]
    )


def _list(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents list", description=COMMANDS["list"])
    parser.parse_args(arguments)
    from pyro_latents.recipes.registry import recipes

    rows = [("recipe", "story", "data", "guides", "paper")]
    for name, settings in recipes().items():
        guides = ", ".join(settings.guides)
        rows.append((name, settings.story, settings.data, guides, settings.paper))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())


def _train(arguments: list[str]) -> None:
    prog = "pyro-latents train"
    if not arguments or arguments[0].startswith("-"):
        if set(arguments) & {"-h", "--help"}:
            print(f"usage: {prog} RECIPE [options]; `{prog} RECIPE --help` shows its options,")
            print("and `pyro-latents list` the recipes.")
            return
        raise UserError("train which recipe? Give its name first; `pyro-latents list` shows all.")
    from pyro_latents import zoo

    name, *rest = arguments
    settings = zoo.settings_of(name)
    parser = Parser(prog=f"{prog} {name}", description=f"Train {name} ({settings.paper}).")
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    parser.add_argument("--guide", default=settings.guides[0], help=", ".join(settings.guides))
    parser.add_argument("--steps", type=int | None, help="gradient steps, instead of epochs")
    parser.add_argument("--limit-train", type=int | None, help="training points to use")
    parser.add_argument("--data-dir", type=str | None, help="folder of the data sets")
    parser.add_argument("--out", type=str | None, help="the run folder (default: runs/NAME)")
    parser.add_argument("--seed", type=int, default=0, help="of parameters, batches and draws")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--devices", type=int, default=1, help="devices of a machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines, started by a cluster")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--precision", default="32-true", help="such as bf16-mixed")
    parser.add_argument("--compile", action="store_true", help="compile encoders and decoders")
    parser.add_argument("--tensorboard", action="store_true", help="write its event files too")
    own = _add_settings(parser, settings)
    given = parser.parse_args(rest)
    if given.resume and given.out is None:
        raise UserError("--resume goes on with a run: name its folder with --out.")
    changed = {field: given[field] for field in own}
    if given.steps is not None and given.epochs != settings.epochs:
        raise UserError("give either --epochs or --steps.")
    recipe = zoo.recipe(
        name,
        guide=given.guide,
        seed=given.seed,
        data_dir=given.data_dir,
        limit_train=given.limit_train,
        **changed,
    )
    began = time.perf_counter()
    run = recipe.train(
        given.out,
        steps=given.steps,
        resume=given.resume,
        devices=given.devices,
        nodes=given.nodes,
        accelerator=given.accelerator,
        precision=given.precision,
        compile=given.compile,
        tensorboard=given.tensorboard,
    )
    print(f"{_last_row(run.folder.history_path)}, {time.perf_counter() - began:.0f} s: {run.path}")


def _evaluate(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents evaluate", description=COMMANDS["evaluate"])
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--particles", type=int, default=1000, help="importance samples")
    parser.add_argument("--limit-test", type=int | None, help="test points to use")
    parser.add_argument(
        "--likelihood-points", type=int, default=1000, help="test points of log_likelihood"
    )
    given = parser.parse_args(arguments)
    from pyro_latents import zoo

    run = zoo.open_run(given.run)
    metrics = run.evaluate(
        particles=given.particles,
        likelihood_points=given.likelihood_points,
        limit_test=given.limit_test,
    )
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(
            f"{name:<{width}}  {value:.4f}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )
    print(f"written to {run.folder.metrics_path}")


def _check(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents check", description=COMMANDS["check"])
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--images", type=int, default=1000, help="test points to check")
    parser.add_argument("--draws", type=int, default=200, help="replicates of each")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    given = parser.parse_args(arguments)
    from pyro_latents import zoo
    from pyro_latents.recipes.checking import check

    run = zoo.open_run(given.run)
    paths = check(run, images=given.images, draws=given.draws, seed=given.seed)
    print(paths[-1].read_text())
    for path in paths:
        print(path)


def _compare(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents compare", description=COMMANDS["compare"])
    parser.add_argument("runs", nargs="+", help="folders of the runs")
    parser.add_argument("--particles", type=int, default=1000, help="importance samples")
    parser.add_argument("--points", type=int, default=100, help="test points to measure on")
    parser.add_argument("--out", type=str, default="comparison", help="the folder to write")
    given = parser.parse_args(arguments)
    from pyro_latents import zoo
    from pyro_latents.recipes.comparison import compare

    runs = [zoo.open_run(path) for path in given.runs]
    comparison = compare(runs, particles=given.particles, points=given.points)
    print(comparison.as_text())
    for path in comparison.write(Path(given.out)):
        print(f"written to {path}")


def _calibrate(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents calibrate", description=COMMANDS["calibrate"])
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--points", type=int, default=500, help="data points to simulate")
    parser.add_argument("--draws", type=int, default=200, help="of the guide for each of them")
    given = parser.parse_args(arguments)
    from pyro_latents import zoo

    run = zoo.open_run(given.run)
    p_values, path = run.calibrate(points=given.points, draws=given.draws)
    for name, value in p_values.items():
        print(f"calibration_p_{name}  {value:.4g}")
    print(f"written to {path} and {run.folder.metrics_path}")


def _plot(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents plot", description=COMMANDS["plot"])
    parser.add_argument("run", help="folder of the run")
    given = parser.parse_args(arguments)
    from pyro_latents import zoo

    for path in zoo.open_run(given.run).plot():
        print(path)


def _report(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents report", description=COMMANDS["report"])
    parser.add_argument("run", help="folder of the run")
    given = parser.parse_args(arguments)
    from pyro_latents import zoo
    from pyro_latents.recipes.report import report

    print(report(zoo.open_run(given.run)))


def _reproduce(arguments: list[str]) -> None:
    parser = Parser(prog="pyro-latents reproduce", description=COMMANDS["reproduce"])
    parser.add_argument("table", nargs="?", help="its name; without one, all are listed")
    parser.add_argument("--budget", default="paper", help="quick (minutes), hours or paper")
    parser.add_argument("--data", type=str | None, help="another data set than the paper's")
    parser.add_argument("--data-dir", type=str | None, help="folder of the data sets")
    parser.add_argument("--out", type=str | None, help="folder to write (default: results/TABLE)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    given = parser.parse_args(arguments)
    from pyro_latents.reproduce.experiment import Context, experiments, reproduce

    if given.table is None:
        for name, experiment in experiments().items():
            print(f"{name:<24}  {experiment.summary}")
        return
    out = Path(given.out or Path("results") / given.table)
    context = Context(given.budget, out, given.data, given.data_dir, given.seed)
    result = reproduce(given.table, context)
    print(result.as_markdown())
    print(f"written to {out / given.table}.json")


def _add_settings(parser: ArgumentParser, settings: Any) -> list[str]:
    """Give the parser an option for each hyper-parameter, and return their names."""
    kind = type(settings)
    hints = get_type_hints(kind, vars(import_module(kind.__module__)))
    meanings = {
        parameter.arg_name: parameter.description
        for ancestor in reversed(kind.__mro__)
        for parameter in parse_docstring(ancestor.__doc__ or "").params
    }
    names = [field.name for field in fields(settings)]
    for name in names:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=hints[name],
            default=getattr(settings, name),
            help=" ".join((meanings.get(name) or "").split()).replace("%", "%%"),
        )
    return names


def _last_row(history: Any) -> str:
    header, *rows = history.read_text().splitlines()
    row = dict(zip(header.split(","), rows[-1].split(","), strict=True))
    text = f"epoch {row['epoch']}, step {row['step']}, loss {float(row['loss']):.2f}"
    if row["validation_loss"]:
        text += f", validation loss {float(row['validation_loss']):.2f} nats"
    return text
