"""Time a step of the EquiVAE with the paper's largest set against one with sets of one, in turns.

Sets of a step share their members, as many as there are points in a batch, so that the size of a
set costs nothing: the claim is a ratio of at most 1.3. A step has its batch made, the loss, the
gradient and the optimiser; the steps take turns, so that a machine whose speed drifts treats them
alike, and the time is that of the processor.

    python benchmarks/set_step.py [--recipe equivae-mnist] [--m-max 7] [--rounds 30]
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pyro
import torch

from pyro_latents import captured, zoo
from pyro_latents.memory import keep_freed_memory
from pyro_latents.training.plan import adam

WARM_UP = 5


def step_of(recipe_name: str, m_max: int, data_dir: Path | None, graph: bool) -> Callable:
    """A training step with sets of up to so many, by its number."""
    parts = zoo.recipe(recipe_name, m_max=m_max, data_dir=data_dir)
    optimizer = adam(parts.model, parts.guide, learning_rate=1e-3)["all"]
    batches = parts.loader("train")
    assert batches is not None
    loss = captured(parts.loss, parts.model, parts.guide) if graph else None

    def step(number: int) -> None:
        batch = batches.batch(number)
        optimizer.zero_grad()
        if loss is not None:
            total = loss(*batch)
        else:
            total = parts.loss.differentiable_loss(parts.model, parts.guide, *batch)
        (total / len(batch[0])).backward()
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
    steps = {m: step_of(given.recipe, m, given.data_dir, given.captured) for m in (1, given.m_max)}
    seconds: dict[int, list[float]] = {m: [] for m in steps}
    with pyro.validation_enabled(False):
        for number in range(given.rounds + WARM_UP):
            for m, step in steps.items():
                began = time.process_time()
                step(number)
                seconds[m].append(time.process_time() - began)
    ones, largest = (seconds[m][WARM_UP:] for m in (1, given.m_max))
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
