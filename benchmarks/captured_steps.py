"""Train with captured steps and with those of the programs, and say how far the losses differ.

Trainings of `first_losses.py` (every recipe with its guides, and with other settings that have
phases, weights that change, dropout or enumerated classes) are run twice, with so little data that
it crosses the ends of epochs; steps are captured from the fourth on. Printed are the largest
relative difference of the losses of single steps, the share of steps that were captured, and why
those of a phase were not.
With `--devices 2` two processes train together; the losses are those of the first.

In double precision by default, in which a difference is one of what is computed: in single
precision rounding alone drives two trainings apart. Exits with 1 where losses differ by more than
`--tolerance`.

    python benchmarks/captured_steps.py [RECIPE ...] [--data-dir DIR] [--steps 200] [--devices 2]
        [--guides paper|two|all] [--precision 64-true] [--out captured.json]
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from first_losses import cases, train_on_little
from torch import Tensor

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.training import steps as training_steps
from pyro_latents.training.step import Objective

FROM = 3
# Lightning starts this program once more for the second rank, which works in the same folder.
FOLDER = Path(os.environ.setdefault("CAPTURED_STEPS", tempfile.mkdtemp()))
FIRST = "LOCAL_RANK" not in os.environ


@contextlib.contextmanager
def watched() -> Iterator[tuple[list[Tensor], list[bool], dict[str, str]]]:
    """Hand out the loss of each step, whether it was captured, and why a phase was not."""
    losses: list[Tensor] = []
    replayed: list[bool] = []
    reasons: dict[str, str] = {}
    take, replay = training_steps.Steps.take, Objective._replay

    def noted(self: Any, *args: Any) -> Tensor:
        replayed.append(False)
        losses.append(take(self, *args))
        reasons.update(self.reasons)
        return losses[-1]

    def noted_replay(self: Any, *args: Any) -> Tensor:
        loss = replay(self, *args)
        replayed[-1] = self.reason is None
        return loss

    training_steps.Steps.take = noted  # type: ignore[method-assign]
    Objective._replay = noted_replay  # type: ignore[method-assign]
    try:
        yield losses, replayed, reasons
    finally:
        training_steps.Steps.take = take  # type: ignore[method-assign]
        Objective._replay = replay  # type: ignore[method-assign]


def difference(case: tuple[str, str, dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """Train both ways; return the largest difference, and how many steps were captured."""
    name, guide, settings = case
    found = []
    for kind in ("eager", "captured"):
        out = FOLDER / name.replace(" ", "-") / guide / kind
        with watched() as (losses, replayed, reasons), contextlib.redirect_stderr(None):
            train_on_little(
                name.split()[0],
                guide,
                settings,
                given.data_dir,
                out,
                steps=given.steps,
                precision=given.precision,
                devices=given.devices,
                eager=kind == "eager",
            )
        found.append(torch.stack(losses).double().cpu())
    eager, captured = found
    relative = ((captured - eager).abs() / eager.abs().clamp(min=1e-3)).max().item()
    share = sum(replayed) / len(replayed)
    return {"difference": relative, "steps": len(eager), "captured": share, "reasons": reasons}


def main() -> None:
    """Run the trainings and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="all of them by default")
    parser.add_argument("--data-dir")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--guides", choices=("paper", "two", "all"), default="all")
    parser.add_argument("--precision", default="64-true")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    training_steps.CAPTURED_FROM = FROM
    found: dict[str, Any] = {}
    for name in given.recipes or zoo.recipes():
        for case in cases(name, given.guides):
            # Guides by the recipe's own settings, and other settings by its own guide.
            if " " in case[0] and case[1] != zoo.recipes()[name].guides[0]:
                continue
            label = f"{case[0]}, {case[1]}"
            try:
                found[label] = one = difference(case, given)
            except UserError as error:
                print(f"{label}: left out, {error}", file=sys.stderr)
                continue
            if FIRST:
                why = "; ".join(f"{phase}: {why}" for phase, why in one["reasons"].items())
                cells = f"{one['difference']:>10.1e}{one['captured']:>8.0%}"
                print(f"{label:<52}{cells}  {why}", flush=True)
    if FIRST:
        far = [name for name, one in found.items() if not one["difference"] <= given.tolerance]
        print(f"{len(found) - len(far)} trainings within {given.tolerance:g}, {len(far)} not.")
        if given.out:
            given.out.write_text(json.dumps(found, indent=1) + "\n")
        sys.exit(bool(far))


if __name__ == "__main__":
    main()
