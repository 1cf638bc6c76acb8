"""Time one SVI step of a VAE against a loop written by hand in PyTorch, in one run.

The hand-written loop has the same networks, batch, objective and optimiser, and like the trainer
after its first steps it does not check shapes and supports; Pyro's SVI is timed without its checks
and with them. The contestants take turns in short blocks, so that a machine whose speed drifts
treats them alike; the medians of the ratios of neighbouring blocks are printed.

    python benchmarks/svi_step.py [--recipe vae-mnist] [--rounds 60] [--threads 1]
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import lightning_fabric
import pyro
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_latents import SVI, zoo
from pyro_latents.guides.families import MIN_SCALE
from pyro_latents.memory import keep_freed_memory
from pyro_latents.runs.recipe import Recipe
from pyro_latents.training.fit import check_hardware
from pyro_latents.training.loop import Loop
from pyro_latents.training.options import FitOptions

STEPS_PER_BLOCK = 10

Block = Callable[[], None]


def by_hand(recipe: Recipe, batches: list[torch.Tensor]) -> Block:
    """A training loop as one would write it for this model alone."""
    encoder, head = recipe.guide.encoder, recipe.guide.families["z"].head
    decoder = recipe.model.decoder
    parameters = [*recipe.model.parameters(), *recipe.guide.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def block() -> None:
        for x in batches:
            optimizer.zero_grad()
            loc, log_scale = head(encoder(x)).chunk(2, dim=-1)
            q = Normal(loc, log_scale.exp() + MIN_SCALE, validate_args=False)
            logits = decoder(q.rsample())
            reconstruction = binary_cross_entropy_with_logits(logits, x, reduction="sum")
            prior = Normal(torch.zeros_like(loc), 1.0, validate_args=False)
            loss = (reconstruction + kl_divergence(q, prior).sum()) / len(x)
            loss.backward()
            optimizer.step()
            # Every trainer looks at its loss, if only to see that it is a number.
            loss.item()

    return block


def by_svi(
    kind: type[pyro.infer.SVI], recipe: Recipe, batches: list[torch.Tensor], *, checked: bool
) -> Block:
    """Pyro's SVI or ours, with Pyro's checks or without."""
    svi = kind(
        recipe.model, recipe.guide, pyro.optim.Adam({"lr": 1e-3, "fused": True}), recipe.loss
    )

    def block() -> None:
        with pyro.validation_enabled(checked):
            for x in batches:
                svi.step(x)

    return block


def by_trainer(recipe: Recipe, batches: list[torch.Tensor]) -> Block:
    """The steps of `pyro-latents train`."""
    options = FitOptions(steps=1, accelerator="cpu", progress=False)
    fabric = check_hardware(recipe, options, Path())
    fabric.launch()
    loop = Loop(fabric, recipe, Path())

    def block() -> None:
        for x in batches:
            loop.progress.count(loop.step((x,)))

    return block


def _seconds(block: Block) -> float:
    began = time.perf_counter()
    block()
    return time.perf_counter() - began


def main() -> None:
    """Run the contest and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="vae-mnist")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    recipes = [zoo.recipe(given.recipe, seed=i) for i in range(5)]
    size = recipes[0].story.batch_size
    batches = [torch.rand(size, *recipes[0].story.x_shape) for _ in range(STEPS_PER_BLOCK)]
    blocks = [
        by_hand(recipes[0], batches),
        by_svi(pyro.infer.SVI, recipes[1], batches, checked=False),
        by_svi(SVI, recipes[2], batches, checked=False),
        by_svi(SVI, recipes[3], batches, checked=True),
        by_trainer(recipes[4], batches),
    ]
    # The first rounds are a warm-up.
    rounds = [[_seconds(block) for block in blocks] for _ in range(given.rounds + 3)][3:]
    result = {
        "recipe": given.recipe,
        "rounds": len(rounds),
        "threads": given.threads,
        "milliseconds_by_hand": 1e3 * median(r[0] for r in rounds) / STEPS_PER_BLOCK,
        "ratio_of_pyro_svi": median(r[1] / r[0] for r in rounds),
        "ratio_of_our_svi": median(r[2] / r[0] for r in rounds),
        "ratio_of_our_svi_with_checks": median(r[3] / r[0] for r in rounds),
        "ratio_of_the_trainer": median(r[4] / r[0] for r in rounds),
        "torch": torch.__version__,
        "lightning_fabric": lightning_fabric.__version__,
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
