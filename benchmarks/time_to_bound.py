"""Time how soon a recipe's training reaches the bound that its published training ends with.

For each recipe and seed both trainings run whole, from nothing to their end: as published (Adam,
at a rate that is halved now and then) and as it is by default. Printed are the bounds on test
data in nats, the steps, and the processor's seconds of the training; then the mean difference of
the bounds over seeds with its standard error, and the ratio of the seconds. With `--limit-train`
fewer images are used by both.

    python benchmarks/time_to_bound.py [--recipes vae-mnist ...] [--seeds 3] [--data-dir DIR]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from story_steps import processor

from pyro_latents import zoo
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.memory import keep_freed_memory
from pyro_latents.runs.registry import quicker

KINDS = ("published", "default")


def train(name: str, seed: int, kind: str, given: argparse.Namespace) -> dict[str, float]:
    """Train once, and return the bound on test data, the steps and the seconds."""
    recipe = zoo.recipe(
        name,
        seed=seed,
        data_dir=given.data_dir,
        limit_train=given.limit_train,
        as_published=kind == "published",
    )
    # Loading data is not what is timed.
    assert len(recipe.splits.train)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = recipe.train(Path(folder) / "run", progress=False, accelerator="cpu")
        seconds = time.process_time() - began
        last = run.folder.read_history()[-1]
        recipe = run.recipe
    terms = bound_terms(recipe.model, recipe.guide, recipe.batches("test"), seed=seed)
    return {
        "elbo": terms["elbo"],
        "validation": float(last["validation_loss"] or "nan"),
        "steps": int(last["step"]),
        "seconds": seconds,
    }


def contest(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Both trainings of a recipe, seed by seed."""
    found: dict[str, Any] = {kind: [] for kind in KINDS}
    for seed in range(given.seeds):
        for kind in KINDS:
            one = train(name, seed, kind, given)
            found[kind].append(one)
            cells = f"{one['elbo']:>9.2f}{one['steps']:>8}{one['seconds']:>10.1f}"
            print(f"{name:<24}{kind:<11}{seed:>5}{cells}", flush=True)
    pairs = list(zip(found["default"], found["published"], strict=True))
    gains = [mine["elbo"] - theirs["elbo"] for mine, theirs in pairs]
    found["gain"] = mean(gains)
    found["standard_error"] = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
    found["seconds"] = mean(mine["seconds"] / theirs["seconds"] for mine, theirs in pairs)
    error = "" if found["standard_error"] is None else f" +- {found['standard_error']:.2f}"
    print(f"{name}: gain {found['gain']:.2f}{error} nats, seconds {found['seconds']:.3f}")
    return found


def main() -> None:
    """Run the trainings and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=quicker(), default=list(quicker()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir")
    parser.add_argument("--limit-train", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{'recipe':<24}{'training':<11}{'seed':>5}{'bound':>9}{'steps':>8}{'seconds':>10}")
    found: dict[str, Any] = {name: contest(name, given) for name in given.recipes}
    found |= {"processor": processor(), "torch": torch.__version__}
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
