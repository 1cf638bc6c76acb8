"""Guides of one frozen model: their gaps, k-hat, and distances from reference posteriors.

    python benchmarks/guides_of_one_model.py [RECIPE ...] [--out FOLDER] [--epochs N] [--images N]

A recipe is trained once, with the first of its guides; then each guide is trained for that model,
with its own parameters alone. Chains draw from the posteriors of some test images, and every guide
is scored against them. Last it says in how many pairs of guides the order of the gaps is that of
the scores, as far as both differ by more than two standard errors. Run again, it goes on with what
is in the folder.
"""

from __future__ import annotations

import argparse
from datetime import date
from itertools import combinations
from math import hypot
from pathlib import Path
from typing import Any

from pyro_latents import zoo
from pyro_latents.evaluation.paired import PairedDifference
from pyro_latents.files import write_json, write_text
from pyro_latents.reproduce.experiment import hardware
from pyro_latents.runs.comparison import Comparison, compare
from pyro_latents.runs.references import reference

NORMALS = ("mean-field", "full-rank", "flow")
# Of each recipe its settings, and guides; a pose without a prior has no posterior.
STORIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "vae-digits": ({}, (*NORMALS, "refined")),
    "triplet-tvae-digits": ({}, ("paper", "gaussian-transformation", "full-rank", "flow")),
    "pose-tvae-digits": ({"pose_prior": "fitted"}, (*NORMALS, "refined")),
    "equivae-digits": ({}, (*NORMALS, "low-rank")),
}
GAP = "gap"
FIGURES = (
    *("elbo", "log_likelihood", GAP, "k_hat_above_threshold", "effective_sample_size"),
    *("reference_mean_error", "reference_spread", "reference_coverage_50"),
    *("reference_coverage_90", "reference_energy_distance", "reference_divergence"),
    "guide_parameters",
)
DISTANCE, DIVERGENCE = "reference_energy_distance", "reference_divergence"


def main() -> None:
    """Train what is not there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="all of them by default")
    parser.add_argument("--out", type=Path, default=Path("guides"))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--images", type=int, default=20, help="with reference posteriors")
    parser.add_argument("--points", type=int, default=100, help="test points of the likelihoods")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.recipes or STORIES:
        found = contest(name, given)
        text = f"{name}\n{found.as_text()}\n{agreement(found)}"
        print(f"{text}\n", flush=True)
        write_text(given.out / name / "guides.txt", text + "\n")
        write_json(given.out / f"guides-{name}.json", as_record(name, found))


def contest(name: str, given: argparse.Namespace) -> Comparison:
    """Train what is not there, and compare the guides."""
    settings, guides = STORIES[name]
    folder, seed = given.out / name, given.seed
    model = folder / "model"
    if not model.exists():
        recipe = zoo.recipe(name, guide=guides[0], seed=seed, **settings)
        recipe.train(model, epochs=given.epochs)
    runs = []
    for guide in guides:
        if not (folder / guide).exists():
            recipe = zoo.recipe(name, model_from=model, guide=guide, seed=seed)
            recipe.train(folder / guide, epochs=given.epochs)
        runs.append(zoo.open_run(folder / guide))
    if not runs[0].folder.reference_path.exists():
        reference(runs[0], images=given.images)
    return compare(runs, points=given.points)


def as_record(name: str, found: Comparison) -> dict[str, Any]:
    """What `record.py` keeps: each figure, and how far that of the first guide is from it."""
    first, *others = found.rows
    rows = []
    for figure in (name for name in FIGURES if name in first):
        cells = [_shown(first[figure])]
        for row, apart in zip(others, found.differences, strict=True):
            beside = f" ({apart[figure]})" if figure in apart else ""
            cells.append(f"{_shown(row[figure])}{beside}")
        rows.append([figure, *cells])
    return {
        "command": f"python benchmarks/guides_of_one_model.py {name}",
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "title": "Guides of one model, and in brackets their differences from the first of them "
        "with standard errors over images",
        "columns": ["figure", *found.labels],
        "rows": rows,
        "notes": [agreement(found).replace("\n", " ")],
    }


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def agreement(found: Comparison) -> str:
    """Say which guide is nearest, and whether gaps order the guides as the references do."""
    rows = dict(zip(found.labels, found.rows, strict=True))
    lines = []
    for name in (DISTANCE, DIVERGENCE):
        nearest = min(rows, key=lambda label: rows[label][name])
        agreed, told = 0, 0
        for pair in combinations(found.labels, 2):
            signs = {_order(found, measure, *pair) for measure in (GAP, name)}
            told += 0 not in signs
            agreed += 0 not in signs and len(signs) == 1
        pairs = len(rows) * (len(rows) - 1) // 2
        lines.append(
            f"{name}: {nearest} is nearest; of {pairs} pairs of guides {told} differ by more than "
            f"two standard errors in it and in the gap, {agreed} of these in the same order."
        )
    return "\n".join(lines)


def _order(found: Comparison, name: str, one: str, other: str) -> int:
    """1 if a figure is larger for one guide than for another, -1 if smaller, 0 if who knows."""
    differences = dict(zip(found.labels[1:], found.differences, strict=True))
    # From the first guide, from which it does not differ itself.
    mine, theirs = (
        differences[label][name] if label in differences else PairedDifference(0.0, 0.0, 0)
        for label in (one, other)
    )
    apart = mine.mean - theirs.mean
    if abs(apart) <= 2 * hypot(mine.standard_error, theirs.standard_error):
        return 0
    return 1 if apart > 0 else -1


if __name__ == "__main__":
    main()
