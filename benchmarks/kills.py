"""Kill trainings at random moments, resume them, and compare them with unbroken ones bit for bit.

Each story is trained once as the command line does it, with all phases of VAELLS. Then its
training is killed by SIGKILL, resumed by `--resume`, killed again, and so on until it ends; and
another one begins, until there were enough kills. They fall at moments that are uniform over the
time of the unbroken training, and a third of them within the write of a checkpoint: the run folder
is watched, and the process killed as soon as the temporary file of one of the first writes is
there. Checkpoints of trainings that are killed are a few steps apart and not a hundred, and steps
are captured from the thirtieth on, so that some are and some are not. Trainings are processes of
their own, forked from this one, so that kills fall into them, not into imports.

Then trainings are cut at random steps, by `--steps` and by `--epochs`, resumed, and compared with
uncut ones, most of which end by early stopping, after a `--patience` that is random too.

Compared are parameters, optimisers and progress in `checkpoint.ckpt` and `best.ckpt`, the history,
all but for the seconds, and the names of the files, among which no temporary one must be. Exits
with 1 where anything differs.

    python benchmarks/kills.py [--kills 30] [--chains 10] [--seed 0] [--out kills.json]
"""

import argparse
import csv
import json
import mmap
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from pyro_latents import zoo
from pyro_latents.cli import main as command_line
from pyro_latents.text import aligned
from pyro_latents.training import loop
from pyro_latents.training import steps as training_steps
from pyro_latents.training.checkpoint import BEST, CHECKPOINT, HISTORY, read_checkpoint
from pyro_latents.training.history import Progress

SMALL: dict[str, Any] = {"limit_train": 120, "validation": 20, "batch_size": 20}
# On data that come with the package: recipe, epochs, options with which the validation loss rises
# now and then, and settings. VAELLS spends as much time in its warm-up as in its other phases; the
# weights of equivae-semi all change within the epochs.
STORIES: dict[str, tuple[str, int, str, dict[str, Any]]] = {
    "vae": ("vae-digits", 40, "--learning-rate 0.03", {}),
    "triplet-tvae": ("triplet-tvae-digits", 15, "--learning-rate 0.01", {}),
    "pose-tvae": ("pose-tvae-digits", 25, "--learning-rate 0.03", {}),
    "vaells": (
        "vaells-swiss-roll",
        70,
        "--learning-rate 0.002 --warm-up 9",
        {"warm_up": 300, "network_steps": 11, "operator_steps": 9, "candidates": 2},
    ),
    "equivae": ("equivae-digits", 8, "--learning-rate 0.01", {"limit_train": 200}),
    "equivae-semi": (
        "equivae-semi-digits",
        8,
        "--learning-rate 0.01",
        {"limit_train": 300, "labels": 100, "warm_up": 2, "ramp": 2, "label_ramp": 3},
    ),
}
# Epochs without improvement that none of them has; there is a `best.ckpt` all the same.
PATIENT = 1000
STEPS_BETWEEN_CHECKPOINTS = 4
CAPTURED_FROM = 30
# Of a checkpoint, best or latest, within one of which a process is killed.
WRITES = 12


class Training:
    """A process that trains.

    Args:
        options: Those of `pyro-latents train`.
        folder: The run folder; what is said goes to a file beside it.
        often: Whether to write checkpoints often.
    """

    def __init__(self, options: str, folder: Path, *, often: bool = False) -> None:
        self.folder, self._log = folder, Path(f"{folder}.log")
        self._step = mmap.mmap(-1, 8)
        self._began = time.perf_counter()
        self._pid = os.fork()
        if not self._pid:
            status = 1
            try:
                status = self._train(f"train {options} --accelerator cpu --out {folder}", often)
            finally:
                os._exit(status)

    def _train(self, command: str, often: bool) -> int:
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        if often:
            loop.MIN_STEPS_BETWEEN_CHECKPOINTS = STEPS_BETWEEN_CHECKPOINTS
        training_steps.CAPTURED_FROM = CAPTURED_FROM
        count, last = Progress.count, self._step

        def counted(self: Progress, loss: torch.Tensor) -> None:
            count(self, loss)
            last[:] = self.step.to_bytes(8, "big")

        Progress.count = counted  # type: ignore[method-assign]
        return command_line(shlex.split(command))

    @property
    def step(self) -> int:
        """The last step that the process has taken, 0 before its first one."""
        return int.from_bytes(self._step[:], "big")

    def finish(self) -> float:
        """Wait for its end, and return the seconds that it took."""
        self._end()
        return time.perf_counter() - self._began

    def kill_after(self, seconds: float) -> bool:
        """Kill it then, and say whether it was still there."""
        while time.perf_counter() < self._began + seconds and not self._has_ended():
            time.sleep(0.001)
        return self._kill()

    def kill_in_write(self, number: int) -> bool:
        """Kill it in that write of a checkpoint, and say whether it came so far."""
        seen: set[str] = set()
        while len(seen) < number and not self._has_ended():
            seen.update(half_written(self.folder))
        return self._kill()

    def _has_ended(self) -> bool:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._pid, options) is not None

    def _kill(self) -> bool:
        os.kill(self._pid, signal.SIGKILL)
        return self._end(signal.SIGKILL) == signal.SIGKILL

    def _end(self, *allowed: int) -> int:
        _, status = os.waitpid(self._pid, 0)
        if status not in (0, *allowed):
            raise SystemExit(f"a training ended by itself:\n{self._log.read_text()}")
        return status


def half_written(folder: Path) -> list[str]:
    """The names of the checkpoints in a folder that are not whole."""
    return [name for name in os.listdir(folder) if ".ckpt." in name] if folder.exists() else []


def same(one: Any, other: Any) -> bool:
    """Whether two entries of checkpoints or rows are equal to the last bit, but for seconds."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        keys = one.keys() - {"seconds"}
        return keys == other.keys() - {"seconds"} and all(same(one[k], other[k]) for k in keys)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run folders, in words."""
    names = [sorted(os.listdir(folder)) for folder in (one, other)]
    found = [] if names[0] == names[1] else [f"files {names}"]
    for name in {CHECKPOINT, BEST}.intersection(*names):
        mine, theirs = (read_checkpoint(folder / name) for folder in (one, other))
        found += [f"{name} {entry}" for entry in mine if not same(mine[entry], theirs[entry])]
    tables = [list(csv.DictReader((folder / HISTORY).open())) for folder in (one, other)]
    return found if same(*tables) else [*found, HISTORY]


def options(story: str) -> str:
    """The recipe of a story and its settings, as words of the command line."""
    recipe, _, _, settings = STORIES[story]
    words = (f"--{k.replace('_', '-')} {v}" for k, v in {**SMALL, **settings}.items())
    return " ".join([recipe, *words])


def broken(story: str, kills: int, folder: Path) -> dict[str, Any]:
    """Kill a story's training so many times, in as many trainings as that takes."""
    recipe, epochs, _, settings = STORIES[story]
    command = f"{options(story)} --epochs {epochs} --patience {PATIENT}"
    seconds = Training(command, folder / "unbroken").finish()
    phase_of = zoo.recipe(recipe, **{**SMALL, **settings}).plan.phase_of
    fell, differing, in_checkpoints, ended = Counter[str](), [], 0, 0
    while True:
        run, number = folder / str(ended), fell.total()
        training = Training(f"{command} --resume", run, often=True)
        if number == kills:
            training.finish()
        elif (
            training.kill_in_write(random.randint(1, WRITES))
            if number % 3 == 2
            else training.kill_after(random.uniform(0, seconds))
        ):
            fell[phase_of(training.step) if training.step else "start"] += 1
            in_checkpoints += bool(half_written(run))
            continue
        ended += 1
        differing += differences(folder / "unbroken", run)
        if number == kills:
            break
    return {
        "story": story,
        "seconds": round(seconds, 1),
        "kills": fell.total(),
        "fell": dict(fell),
        "in checkpoints": in_checkpoints,
        "trainings": ended,
        "differences": differing,
    }


def cut(story: str, folder: Path) -> dict[str, Any]:
    """Train a story in one, and in pieces of random lengths that are asked for in either way."""
    _, epochs, unsteady, _ = STORIES[story]
    command = f"{options(story)} {unsteady} --patience {random.randint(1, 3)}"
    whole, run, last = folder / "whole", folder / "cut", f"--epochs {epochs}"
    Training(f"{command} {last}", whole).finish()
    rows = list(csv.DictReader((whole / HISTORY).open()))
    steps, length = int(rows[-1]["step"]), int(rows[0]["step"])
    ways = (
        [(step, f"--steps {step}") for step in range(1, steps)],
        [(epoch * length, f"--epochs {epoch}") for epoch in range(1, len(rows))],
    )
    ends = sorted(random.choice(random.choice(ways)) for _ in range(random.randint(2, 4)))
    pieces = [*(piece for _, piece in ends), last]
    for piece in pieces:
        Training(f"{command} {piece} --resume", run, often=random.random() < 0.5).finish()
    return {
        "story": story,
        "patience": int(command[-1]),
        "pieces": pieces,
        "steps": steps,
        "stopped early": len(rows) < epochs,
        "differences": differences(whole, run),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as text, with how a training differs, if it does, at the end."""
    shown = [
        [_cell(value) for name, value in row.items() if name != "differences"]
        + ["; ".join(row["differences"]) or "equal"]
        for row in rows
    ]
    return aligned([[*list(rows[0])[:-1], ""], *shown])


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def main() -> None:
    """Kill and cut trainings, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="of all stories together")
    parser.add_argument("--chains", type=int, default=10, help="trainings that are cut")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    # A process that was forked cannot use the threads of this one.
    torch.set_num_threads(1)
    random.seed(given.seed)
    shares = Counter(story for _, story in zip(range(given.kills), cycle(STORIES), strict=False))
    found: dict[str, list[dict[str, Any]]] = {"kills": [], "chains": []}
    with tempfile.TemporaryDirectory() as name:
        for number, (story, kills) in enumerate(shares.items()):
            folder = Path(name, f"kills-{number}")
            folder.mkdir()
            found["kills"].append(broken(story, kills, folder))
            print(f"{story}: killed {kills} times", file=sys.stderr)
        for number, story in zip(range(given.chains), cycle(STORIES), strict=False):
            folder = Path(name, f"chain-{number}")
            folder.mkdir()
            found["chains"].append(cut(story, folder))
            print(f"{story}: cut", file=sys.stderr)
    print(*(table(rows) for rows in found.values() if rows), sep="\n\n")
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(any(row["differences"] for rows in found.values() for row in rows))


if __name__ == "__main__":
    main()
