"""Time a step of the EquiVAE with unlabelled points against one with labelled points, in one run.

Both steps have the same model, batch size, set size and optimiser; an unlabelled point is decoded
once for each class. The claim is that its step costs at most 1.2 times the number of classes. The
steps take turns, so that a machine whose speed drifts treats them alike. The growth of the memory
of each kind of step is measured in a process of its own.

    python benchmarks/unlabelled_step.py [--decoder conv] [--rounds 20] [--threads 1]
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import pyro
import torch
from torch import Tensor
from turns import in_turns

from pyro_latents import zoo
from pyro_latents.memory import keep_freed_memory
from pyro_latents.programs import local_parameters
from pyro_latents.stories.equivae.objective import SemiSupervisedBound
from pyro_latents.training.plan import adam

NUM_CLASSES = 10  # of every data set of these recipes
MEGABYTE = 1024  # ru_maxrss is in kilobytes on Linux


def steps(
    recipe_name: str, decoder: str, size: int, members: int
) -> dict[str, Callable[[], None]]:
    """The two kinds of steps of one model."""
    # Equation (4) alone.
    recipe = zoo.recipe(recipe_name, decoder=decoder, label_weight=0.0)
    model, guide, bound = recipe.model, recipe.guide, recipe.loss
    assert isinstance(bound, SemiSupervisedBound)
    shape = recipe.story.x_shape
    optimizer = adam(model, guide, learning_rate=1e-3)["all"]
    x, y = torch.rand(size, *shape), torch.arange(size) % NUM_CLASSES
    sets, class_sets = torch.rand(size, members, *shape), torch.rand(NUM_CLASSES, members, *shape)
    kinds: dict[str, tuple[SemiSupervisedBound, tuple[Tensor, ...]]] = {
        "labelled": (bound.of_labelled(), (x, class_sets, x, y, sets)),
        "unlabelled": (bound, (x, class_sets)),
    }

    def step(kind: str) -> None:
        loss, args = kinds[kind]
        optimizer.zero_grad()
        with local_parameters(model, guide), pyro.validation_enabled(False):
            (loss.differentiable_loss(model, guide, *args) / size).backward()
        optimizer.step()

    return {kind: partial(step, kind) for kind in kinds}


def memory(job: tuple[str, str, int, int, int, str]) -> float:
    """The megabytes by which the largest resident size grows in a few steps of one kind."""
    recipe, decoder, size, members, threads, kind = job
    torch.set_num_threads(threads)
    step = steps(recipe, decoder, size, members)[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / MEGABYTE


def main() -> None:
    """Time both steps and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="equivae-semi-digits")
    parser.add_argument("--decoder", choices=("dense", "conv"), default="dense")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--set-size", type=int, default=4)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    grown = {}
    for kind in ("labelled", "unlabelled"):
        with context.Pool(1) as pool:
            job = (
                given.recipe,
                given.decoder,
                given.batch_size,
                given.set_size,
                given.threads,
                kind,
            )
            grown[kind] = pool.map(memory, [job])[0]
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    kinds = steps(given.recipe, given.decoder, given.batch_size, given.set_size)
    seconds = in_turns(kinds, given.rounds, warm_up=3, clock=time.perf_counter)
    pairs = list(zip(seconds["labelled"], seconds["unlabelled"], strict=True))
    ratio = median(b / a for a, b in pairs)
    result = {
        "recipe": given.recipe,
        "decoder": given.decoder,
        "batch_size": given.batch_size,
        "set_size": given.set_size,
        "threads": given.threads,
        "rounds": len(pairs),
        "milliseconds_labelled": 1e3 * median(a for a, _ in pairs),
        "milliseconds_unlabelled": 1e3 * median(b for _, b in pairs),
        "ratio": ratio,
        "ratio_per_class": ratio / NUM_CLASSES,
        "megabytes_labelled": grown["labelled"],
        "megabytes_unlabelled": grown["unlabelled"],
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
