"""Time how soon a recipe's training reaches the bound that its published training ends with.

For each recipe and seed the trainings run whole, from nothing to their end: as published (Adam,
at a rate that is halved now and then), and as it is by default; `--kinds` has others too. Printed
are the bounds on test data in nats, the steps, and the processor's seconds of the training; then,
beside the first kind, the mean difference of the bounds over seeds with its standard error, and
the ratio of the seconds. With `--limit-train` fewer images are used by all.

    python benchmarks/time_to_bound.py [--recipes vae-mnist ...] [--seeds 3] [--data-dir DIR]
        [--kinds published default bf16]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from story_steps import processor

from pyro_latents import zoo
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.paired import standard_error
from pyro_latents.memory import keep_freed_memory
from pyro_latents.runs.registry import quicker

# Images of a shortened training for each that is held out.
HELD_OUT = 10
KINDS = ("published", "default", "bf16")


def train(name: str, seed: int, kind: str, given: argparse.Namespace) -> dict[str, float]:
    """Train once, and return the bound on test data, the steps and the seconds."""
    settings = {}
    if given.limit_train:
        # So that passes over few images are not passes over many that are held out.
        most = given.limit_train // HELD_OUT
        settings["validation"] = min(zoo.recipes()[name].validation, most)
    recipe = zoo.recipe(
        name,
        seed=seed,
        data_dir=given.data_dir,
        limit_train=given.limit_train,
        as_published=kind == "published",
        **settings,
    )
    # Loading data is not what is timed.
    assert len(recipe.splits.train)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = recipe.train(
            Path(folder) / "run",
            progress=False,
            accelerator="cpu",
            precision="bf16-mixed" if kind == "bf16" else "32-true",
        )
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
    """The trainings of a recipe, seed by seed, and what the first kind leaves to the others."""
    first, *others = given.kinds
    found: dict[str, Any] = {kind: [] for kind in given.kinds}
    for seed in range(given.seeds):
        for kind in given.kinds:
            one = train(name, seed, kind, given)
            found[kind].append(one)
            cells = f"{one['elbo']:>9.2f}{one['steps']:>8}{one['seconds']:>10.1f}"
            print(f"{name:<24}{kind:<11}{seed:>5}{cells}", flush=True)
    for kind in others:
        pairs = list(zip(found[kind], found[first], strict=True))
        gains = torch.tensor([mine["elbo"] - base["elbo"] for mine, base in pairs])
        beside = found[f"{kind} beside {first}"] = {
            "gain": gains.mean().item(),
            "standard_error": standard_error(gains) if len(gains) > 1 else None,
            "seconds": mean(mine["seconds"] / base["seconds"] for mine, base in pairs),
        }
        error = f" +- {standard_error(gains):.2f}" if len(gains) > 1 else ""
        gain, seconds = beside["gain"], beside["seconds"]
        print(f"{name}: {kind} gains {gain:.2f}{error} nats in {seconds:.3f} of the seconds")
    return found


def main() -> None:
    """Run the trainings and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=quicker(), default=list(quicker()))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS[:2]))
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
