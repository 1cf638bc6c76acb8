"""Guides of one frozen model: their gaps, k-hat, and distances from reference posteriors.

    python benchmarks/guides_of_one_model.py [RECIPE] [--out FOLDER] [--epochs N] [--images N]

The recipe is trained once, with its own guide; then each guide is trained for that model, with
its own parameters alone. Chains draw from the posteriors of some test images, and every guide is
scored against them. Run again, it goes on with what is in the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_latents import zoo
from pyro_latents.files import write_text
from pyro_latents.runs.comparison import compare
from pyro_latents.runs.references import reference

GUIDES = ("mean-field", "full-rank", "flow", "refined")


def main() -> None:
    """Train what is not there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="vae-digits")
    parser.add_argument("--out", type=Path, default=Path("guides"))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--images", type=int, default=20, help="with reference posteriors")
    parser.add_argument("--points", type=int, default=100, help="test points of the likelihoods")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model, seed = given.out / "model", given.seed
    if not model.exists():
        zoo.recipe(given.recipe, seed=seed).train(model, epochs=given.epochs)
    runs = []
    for guide in GUIDES:
        path = given.out / guide
        if not path.exists():
            recipe = zoo.recipe(given.recipe, model_from=model, guide=guide, seed=seed)
            recipe.train(path, epochs=given.epochs)
        runs.append(zoo.open_run(path))
    if not runs[0].folder.reference_path.exists():
        reference(runs[0], images=given.images)
    found = compare(runs, points=given.points)
    print(found.as_text())
    write_text(given.out / "guides.txt", found.as_text() + "\n")


if __name__ == "__main__":
    main()
