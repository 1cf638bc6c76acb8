"""Time a step of the EquiVAE with the paper's largest set against one with sets of one, in turns.

Sets of a step share their members, as many as there are points in a batch, so that the size of a
set costs nothing: the claim is a ratio of at most 1.3. A step has its batch made, the loss, the
gradient and the optimiser; the steps take turns, so that a machine whose speed drifts treats them
alike, and the time is that of the processor.

    python benchmarks/set_step.py [--recipe equivae-mnist] [--m-max 7] [--rounds 30]
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import pyro
import torch
from turns import in_turns

from pyro_latents import captured, zoo
from pyro_latents.memory import keep_freed_memory
from pyro_latents.training.plan import adam

WARM_UP = 5


def step_of(recipe_name: str, m_max: int, data_dir: Path | None, graph: bool) -> Callable:
    """Training steps with sets of up to so many, one at each call."""
    parts = zoo.recipe(recipe_name, m_max=m_max, data_dir=data_dir)
    optimizer = adam(parts.model, parts.guide, learning_rate=1e-3)["all"]
    batches = parts.loader("train")
    assert batches is not None
    numbers, programs = count(), (parts.model, parts.guide)
    eager = partial(parts.loss.differentiable_loss, *programs)
    loss: Callable = captured(parts.loss, *programs) if graph else eager

    def step() -> None:
        batch = batches.batch(next(numbers))
        optimizer.zero_grad()
        (loss(*batch) / len(batch[0])).backward()
        optimizer.step()

    return step


def main() -> None:
    """Time both steps and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="equivae-mnist")
    parser.add_argument("--m-max", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--captured", action="store_true", help="as one graph, without Pyro")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    steps = {
        name: step_of(given.recipe, m, given.data_dir, given.captured)
        for name, m in {"ones": 1, "largest": given.m_max}.items()
    }
    with pyro.validation_enabled(False):
        seconds = in_turns(steps, given.rounds, warm_up=WARM_UP)
    ones, largest = seconds["ones"], seconds["largest"]
    result = {
        "recipe": given.recipe,
        "captured": given.captured,
        "m_max": given.m_max,
        "rounds": given.rounds,
        "milliseconds_of_one": 1e3 * median(ones),
        "milliseconds_of_m_max": 1e3 * median(largest),
        "ratio": median(b / a for a, b in zip(ones, largest, strict=True)),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
