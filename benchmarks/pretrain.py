"""Make the weights that come with the package, with their figures and cards, from nothing.

    python benchmarks/pretrain.py [NAME ...] --data-dir DATA [--work FOLDER] [--out FOLDER]

Weights of a name and version are made once: what is in the package is left alone, unless its
folder is deleted or ``--out`` names another one. Trainings are kept in the work folder, and those
that are there are gone on with. A guide for a frozen model is trained on the model as it is
packaged, whose numbers may have 16 bits, and its own parameters alone are written: the model is
that of the weights that it names. Numbers have 16 bits where that moves the bound of test data by
less than a tenth of its standard error. Figures are measured on the weights as they are written.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from shutil import copy, rmtree
from tempfile import TemporaryDirectory
from typing import Any

from pyro_latents import zoo
from pyro_latents.evaluation.bound import bound_by_point
from pyro_latents.evaluation.paired import standard_error
from pyro_latents.files import write_text
from pyro_latents.reproduce.experiment import hardware
from pyro_latents.runs.card import JSON, MARKDOWN, Card, as_markdown, hash_of, probe, write_card
from pyro_latents.runs.export import write_export
from pyro_latents.runs.folder import REFERENCE
from pyro_latents.runs.recipe import Run
from pyro_latents.runs.references import reference
from pyro_latents.runs.weights import PACKAGED, PretrainedFolder
from pyro_latents.stories.story import by_muon

MEASURED = {"particles": 200, "likelihood_points": 200, "limit_test": 2000}
# Test points that rounding is judged on, and the share of the standard error that it may cost.
ROUNDED_POINTS, ROUNDED_SHARE = 2000, 0.1
CHAINS = {"chains": 4, "draws": 300}


@dataclass(frozen=True)
class Weights:
    """What is trained, and for how long.

    Args:
        recipe: Its recipe.
        epochs: Passes over the data.
        guide: The guide.
        of: The weights whose model is taken as it is, if it is another's.
        references: Test points to draw reference posteriors of.
        half: Whether numbers may have 16 bits.
        numbers: Hyper-parameters other than the recipe's.
    """

    recipe: str
    epochs: int
    guide: str = "paper"
    of: str | None = None
    references: int = 0
    half: bool = True
    numbers: Mapping[str, Any] = field(default_factory=dict)


# Of a few minutes each, but for turned digits, which have the paper's steps. What recipes may come
# to do otherwise is told. No chain moves the thesis' pose, which has no density.
MUON = by_muon(2e-3)
POSE = by_muon(4e-3)
EQUIVAE = by_muon(2e-3, deform=0.05, dropout=0.0)
DRAWN = 5


def images(recipe: str, epochs: int, numbers: Mapping[str, Any]) -> Weights:
    """Plan weights of a model of images."""
    return Weights(recipe, epochs, references=DRAWN, numbers=numbers)


def points(recipe: str, epochs: int, guide: str = "paper", of: str | None = None) -> Weights:
    """Plan weights of a VAELLS: operators want all their bits, and no chain draws its paths."""
    return Weights(recipe, epochs, guide, of, half=False)


PLAN = {
    "vae-mnist-v1": images("vae-mnist", 10, MUON),
    "vae-mnist-flow-v1": Weights("vae-mnist", 6, "flow", of="vae-mnist-v1"),
    "vae-fashion-mnist-v1": images("vae-fashion-mnist", 4, MUON),
    "vae-fashion-mnist-flow-v1": Weights(
        "vae-fashion-mnist", 4, "flow", of="vae-fashion-mnist-v1"
    ),
    "pose-tvae-mnist-v1": Weights("pose-tvae-mnist", 8, numbers=POSE),
    "pose-tvae-mnist-flow-v1": Weights("pose-tvae-mnist", 8, "flow", of="pose-tvae-mnist-v1"),
    "pose-dtvae-mnist-v1": Weights("pose-dtvae-mnist", 8, numbers=POSE),
    "pose-dtvae-mnist-flow-v1": Weights("pose-dtvae-mnist", 8, "flow", of="pose-dtvae-mnist-v1"),
    "triplet-tvae-mnist-v1": images("triplet-tvae-mnist", 6, MUON),
    "triplet-tvae-mnist-flow-v1": Weights(
        "triplet-tvae-mnist", 16, "flow", of="triplet-tvae-mnist-v1", numbers=MUON
    ),
    "triplet-tvae-fashion-mnist-v1": images("triplet-tvae-fashion-mnist", 6, MUON),
    "triplet-tvae-fashion-mnist-flow-v1": Weights(
        "triplet-tvae-fashion-mnist",
        16,
        "flow",
        of="triplet-tvae-fashion-mnist-v1",
        numbers=MUON,
    ),
    "equivae-mnist-v1": images("equivae-mnist", 4, EQUIVAE),
    "equivae-mnist-full-rank-v1": Weights("equivae-mnist", 4, "full-rank", of="equivae-mnist-v1"),
    "vaells-swiss-roll-v1": points("vaells-swiss-roll", 91),
    "vaells-swiss-roll-amortised-v1": points(
        "vaells-swiss-roll", 30, "amortised", "vaells-swiss-roll-v1"
    ),
    "vaells-circles-v1": points("vaells-circles", 308),
    "vaells-circles-amortised-v1": points("vaells-circles", 60, "amortised", "vaells-circles-v1"),
    "vaells-rotated-mnist-v1": points("vaells-rotated-mnist", 22),
    "vaells-rotated-mnist-amortised-v1": points(
        "vaells-rotated-mnist", 3, "amortised", "vaells-rotated-mnist-v1"
    ),
}


def make(name: str, work: Path, out: Path, data_dir: str | None) -> None:
    """Train, write, measure and describe weights."""
    plan = PLAN[name]
    run = trained(name, work, out, data_dir)
    folder, bits, moved = out / name, 32, None
    # What one that was stopped has left.
    rmtree(folder, ignore_errors=True)
    if plan.half:
        with TemporaryDirectory() as aside:
            half = Run(run.export(Path(aside) / name, half=True), data_dir=data_dir)
            moved = rounding(run, half)
        bits = 16 if abs(moved[0]) < ROUNDED_SHARE * moved[1] else 32
    write_export(run.folder, folder, half=bits == 16, model=plan.of is None)
    with TemporaryDirectory() as aside:
        results = Path(aside) / name
        made = Run(PretrainedFolder(folder, results), data_dir=data_dir)
        made.evaluate(**MEASURED)
        for path in results.iterdir():
            copy(path, folder)
    card = Card(
        name=name,
        sha256=hash_of(folder),
        bits=bits,
        rounding=moved,
        numbers=dict(plan.numbers),
        made=date.today().isoformat(),
        hardware=hardware(),
        command=f"python benchmarks/pretrain.py {name} --data-dir DATA --out FOLDER",
        probes=tuple(probe(opened(folder, data, data_dir)) for data in probed(made)),
    )
    write_card(card, folder)


def refer(name: str, out: Path, data_dir: str | None) -> None:
    """Draw the reference posteriors of weights, beside them."""
    images = PLAN[name].references
    if not images or (out / name / REFERENCE).exists():
        return
    with TemporaryDirectory() as aside:
        made = Run(PretrainedFolder(out / name, Path(aside) / name), data_dir=data_dir)
        copy(reference(made, images=images, **CHAINS).path, out / name)


def trained(name: str, work: Path, out: Path, data_dir: str | None) -> Run:
    """Train weights, or what is left of their training."""
    plan, folder = PLAN[name], work / name
    # What a guide keeps of where its model is from is the name of this folder.
    base = plan.of and Run(PretrainedFolder(out / plan.of, work / "of" / plan.of))
    recipe = zoo.recipe(
        plan.recipe, guide=plan.guide, model_from=base or None, data_dir=data_dir, **plan.numbers
    )
    begun = (folder / "config.yaml").exists()
    if begun and int(Run(folder).folder.read_history()[-1]["epoch"]) >= plan.epochs:
        return Run(folder, data_dir=data_dir)
    return recipe.train(folder, epochs=plan.epochs, resume=begun)


def rounding(whole: Run, half: Run) -> tuple[float, float]:
    """Return what 16 bits add to the bound of test data, and the bound's standard error."""
    bounds = []
    for run in (whole, half):
        batches = run.parts.batches("test", limit=ROUNDED_POINTS)
        bounds.append(bound_by_point(run.parts.model, run.parts.guide, batches, seed=0)["elbo"])
    return (bounds[1] - bounds[0]).double().mean().item(), standard_error(bounds[0])


def opened(folder: Path, data: str, data_dir: str | None) -> Run:
    """Open weights on some data, with nothing to write."""
    return Run(PretrainedFolder(folder, folder / "nowhere"), data_dir=data_dir, data=data)


def probed(run: Run) -> list[str]:
    """Return the data that figures are found of: first some that are everywhere."""
    everywhere = ["digits"] if len(run.story.x_shape) == 3 else []
    return list(dict.fromkeys([*everywhere, run.story.data]))


def main() -> None:
    """Make all weights, or some by name, and print their cards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all if none is given")
    parser.add_argument("--data-dir", help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"))
    parser.add_argument("--out", type=Path, default=PACKAGED)
    given = parser.parse_args()
    if unknown := set(given.names) - PLAN.keys():
        parser.error(f"no such weights: {', '.join(unknown)}; there are {', '.join(PLAN)}")
    for name in given.names or PLAN:
        folder = given.out / name
        if not (folder / JSON).exists():
            make(name, given.work, given.out, given.data_dir)
        refer(name, given.out, given.data_dir)
        # Those of weights that were there may be of an earlier form.
        write_text(folder / MARKDOWN, as_markdown(folder))
        print((folder / MARKDOWN).read_text(), flush=True)


if __name__ == "__main__":
    main()
