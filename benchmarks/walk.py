"""Count the files of this project that one training step passes, and the moves between them.

A move is a call from a function in one file of the project to a function in another; frames of
Pyro, PyTorch and Lightning between the two are looked through, and returns are not counted.
Counted are the loss of one batch and its gradient, by `loss(model, guide)` alone, and a whole step
of the training loop: from the request for its batch to that for the next one. The first is the
second call of its kind, the second a step in the middle of an epoch after which Pyro's checks of
the first ten are over. Calls are those of all Python functions, whosever they are.

At the end stand the files that VAELLS is made of, those of transport/ apart: first those in which
anything runs to build its parts or to take a step of any phase, then those of the run around it.

    python benchmarks/walk.py [STORY ...] [--moves] [--out walk.json]
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import CO_GENERATOR
from pathlib import Path
from types import FrameType
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.programs import local_parameters
from pyro_latents.runs.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("pyro_latents/", "models/", "guides/")
APART = "pyro_latents/transport/"
# The step that is counted, from 0: past the ten that Pyro checks, and within an epoch.
COUNTED_STEP = 15

# All on data that come with the package, and at the full weights of their objectives.
STORIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae-digits", {}),
    "triplet-tvae": ("triplet-tvae-digits", {}),
    "pose-tvae": ("pose-tvae-digits", {}),
    "vaells": ("vaells-swiss-roll", {"network_steps": 0, "operator_steps": 0}),
    "equivae": ("equivae-digits", {}),
    "equivae-semi": (
        "equivae-semi-digits",
        {"warm_up": 0.0, "ramp": 0.0, "label_delay": 0.0, "label_ramp": 0.0},
    ),
}
# Two steps of each phase of VAELLS.
ALL_PHASES = {"warm_up": 2, "network_steps": 2, "operator_steps": 2, "candidates": 2}


@cache
def project_file(file_name: str) -> str | None:
    """The path of a file of the project from its root, None of other files."""
    # models/ and guides/ are links within the package.
    path = os.path.relpath(os.path.realpath(file_name), ROOT)
    return path if path.startswith(PROJECT) else None


class Walk:
    """What `sys.setprofile` calls while a walk is on.

    Attributes:
        files: Those in which a function was called.
        moves: How often a function of one file called one of another.
        calls: Of all Python functions.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.moves: Counter[tuple[str, str]] = Counter()
        self.calls = 0
        # A generator that goes on is no further call; frames are kept lest their ids be reused.
        self._begun: dict[int, FrameType] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count what is called in the context."""
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count a call; other events pass."""
        if event != "call" or frame.f_code.co_filename == __file__:
            return
        self.calls += 1
        here = self._file_of(frame)
        if here is None:
            return
        self.files.add(here)
        if frame.f_code.co_flags & CO_GENERATOR:
            if id(frame) in self._begun:
                return
            self._begun[id(frame)] = frame
        caller = frame.f_back
        while caller is not None and self._file_of(caller) is None:
            caller = caller.f_back
        there = None if caller is None else self._file_of(caller)
        if there is not None and there != here:
            self.files.add(there)
            self.moves[there, here] += 1

    def _file_of(self, frame: FrameType) -> str | None:
        code = frame.f_code
        if code.co_filename == "<string>" and code.co_name == "__init__":
            # A dataclass writes its constructor itself.
            module = sys.modules.get(type(frame.f_locals.get("self")).__module__)
            return project_file(getattr(module, "__file__", None) or "")
        return project_file(code.co_filename)

    def figures(self) -> dict[str, Any]:
        """What is to be reported."""
        moves = {f"{a} -> {b}": n for (a, b), n in self.moves.most_common()}
        return {
            "files": len(self.files),
            "moves": self.moves.total(),
            "calls": self.calls,
            "passed": sorted(self.files),
            "by_pair": moves,
        }


def of_loss(recipe: Recipe) -> Walk:
    """The walk of the loss of one batch and its gradient."""
    model, guide = recipe.model, recipe.guide
    batch = Batches(recipe.batches(), recipe.story.batch_size, seed=0).batch(0)
    loss = recipe.loss(model, guide)

    def step() -> None:
        with local_parameters(model, guide), pyro.validation_enabled(False):
            (loss(*batch) / len(batch[0])).backward()

    walk = Walk()
    step()
    with walk.on():
        step()
    return walk


@contextmanager
def each_step(walk: Walk, counted: Callable[[int], bool]) -> Iterator[None]:
    """Have the training steps that are ``counted``, by their number, walked while they run.

    This is the one place that knows the training loop: it asks `Batches` for each batch, and those
    of training alone are shuffled.
    """
    iterate = Batches.__iter__
    steps = 0

    def requests(self: Batches) -> Iterator[tuple[Tensor, ...]]:
        nonlocal steps
        batches = iterate(self)
        while True:
            sys.setprofile(walk if self.shuffle and counted(steps) else None)
            try:
                batch = next(batches)
            except StopIteration:
                sys.setprofile(None)
                return
            steps += self.shuffle
            yield batch

    Batches.__iter__ = requests  # type: ignore[method-assign]
    try:
        yield
    finally:
        sys.setprofile(None)
        Batches.__iter__ = iterate  # type: ignore[method-assign]


def train(recipe: Recipe, steps: int) -> None:
    """Train for some steps, as the command line does."""
    with tempfile.TemporaryDirectory() as folder:
        recipe.train(Path(folder) / "run", steps=steps, accelerator="cpu", progress=False)


def of_step(recipe: Recipe) -> Walk:
    """The walk of one step of the training loop."""
    walk = Walk()
    with each_step(walk, lambda step: step == COUNTED_STEP):
        train(recipe, COUNTED_STEP + 2)
    return walk


def whole(name: str, settings: dict[str, Any], steps: int) -> tuple[list[str], list[str]]:
    """The files of a story's parts and steps, and the others that its training passes."""
    inner, outer = Walk(), Walk()
    recipe = zoo.recipe(name, **settings)
    # Where data come from is the run's affair.
    _ = recipe.splits
    with inner.on():
        _ = recipe.model, recipe.guide, recipe.loss, recipe.plan, recipe.loader("train")
    # Of the last step, what a training ends with would be counted too.
    with each_step(inner, lambda step: step < steps - 1):
        train(recipe, steps)
    with outer.on():
        train(zoo.recipe(name, **settings), steps)
    return sorted(inner.files), sorted(outer.files - inner.files)


def print_files(title: str, files: list[str]) -> None:
    """Print a list of files but those of transport/, and count it."""
    near = [file for file in files if not file.startswith(APART)]
    folders = {os.path.dirname(file) for file in near}
    print(f"\n{title}: {len(near)} files in {len(folders)} folders")
    print(*(f"  {file}" for file in near), sep="\n")
    if len(files) > len(near):
        print(f"  and {len(files) - len(near)} of {APART}")


def main() -> None:
    """Walk through the stories and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stories", nargs="*", metavar="STORY", help=", ".join(STORIES))
    parser.add_argument("--moves", action="store_true", help="print how often which file is left")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if unknown := set(given.stories) - set(STORIES):
        parser.error(f"unknown {', '.join(unknown)}: give {', '.join(STORIES)}")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    print(f"{'':<14}{'loss and gradient':^26}{'training step':^26}")
    print(f"{'story':<14}" + 2 * f"{'files':>8}{'moves':>8}{'calls':>10}")
    for story in given.stories or STORIES:
        name, settings = STORIES[story]
        kinds = {"loss": of_loss, "step": of_step}
        found[story] = {k: f(zoo.recipe(name, **settings)).figures() for k, f in kinds.items()}
        cells = [found[story][k][n] for k in kinds for n in ("files", "moves", "calls")]
        print(f"{story:<14}" + "{:>8}{:>8}{:>10,}{:>8}{:>8}{:>10,}".format(*cells), flush=True)
        if given.moves:
            for pair, number in found[story]["step"]["by_pair"].items():
                print(f"  {number:>4}  {pair}")
    if "vaells" in found:
        parts, run = whole("vaells-swiss-roll", ALL_PHASES, steps=8)
        found["vaells"] |= {"parts": parts, "run": run}
        print_files("VAELLS, its parts and its steps", parts)
        print_files("The run around it", run)
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
