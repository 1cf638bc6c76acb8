"""The models of Vivé's thesis, and their training for a table or figure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_latents import zoo
from pyro_latents.recipes.recipe import Recipe, Run
from pyro_latents.reproduce.experiment import Context
from pyro_latents.reproduce.parallel import in_processes

# Of the quick budget: a sixth of MNIST and 15 passes over it, under a minute a model.
QUICK_IMAGES, QUICK_STEPS = 10_000, 1_500


@dataclass(frozen=True)
class Spec:
    """A model to train.

    Args:
        label: Its name in the table, which its run folder is called after too.
        story: The recipe's story, ``vae``, ``pose-tvae`` or ``pose-dtvae``.
        settings: Settings other than the recipe's.
        guide: The guide's name.
    """

    label: str
    story: str
    settings: dict[str, Any]
    guide: str = "paper"

    @property
    def folder(self) -> str:
        """The name of the run's folder, with the settings that the label does not name."""
        words = [self.label, *(str(self.settings.get(key, "")) for key in ("pose_prior", "data"))]
        name = " ".join(dict.fromkeys(" ".join(words).replace(",", "").split()))
        return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "VAE": ("vae", {}),
    "Affine-TVAE": ("pose-tvae", {"warp": "affine6"}),
    "TPS-TVAE": ("pose-tvae", {"warp": "tps"}),
    "Affine-DTVAE": ("pose-dtvae", {"warp": "affine6"}),
}


def spec_of(kind: str, z_dim: int, **settings: Any) -> Spec:
    """Return a model of table 1 by the name of its kind, with a code of some size."""
    story, own = KINDS[kind]
    return Spec(f"{kind} ({z_dim})", story, {**own, "z_dim": z_dim, **settings})


def build(spec: Spec, context: Context) -> Recipe:
    """Return the recipe of a spec on the data of the context."""
    settings = dict(spec.settings)
    if spec.story == "vae":
        # The baseline has the networks and the training of the others.
        pose = zoo.recipes()["pose-tvae-mnist"]
        names = ("epochs", "batch_size", "validation", "halve_every")
        shared = {name: getattr(pose, name) for name in names}
        settings = {"networks": "dense", **shared, **settings}
    data = context.data or settings.pop("data", "mnist")
    limit = QUICK_IMAGES if context.budget == "quick" else None
    return zoo.recipe(
        f"{spec.story}-mnist",
        guide=spec.guide,
        seed=context.seed,
        data_dir=context.data_dir,
        limit_train=limit,
        **{**settings, "data": data},
    )


def train_all(context: Context, specs: list[Spec]) -> dict[str, Recipe]:
    """Train models side by side and return the trained recipes by label."""
    paths = in_processes(train_one, [(context, spec) for spec in specs], description="models")
    return {spec.label: Run(path).recipe for spec, path in zip(specs, paths, strict=True)}


def settings_of(context: Context) -> dict[str, Any]:
    """Return what a result says of the training of its models, which is the same for all."""
    recipe = build(spec_of("Affine-TVAE", 20), context)
    names = ("data", "batch_size", "learning_rate", "hidden_dim")
    return {
        **{name: getattr(recipe.settings, name) for name in names},
        **_duration(recipe, context),
        "optimiser": "Adam",
        "training_images": len(recipe.splits.train),
        "provenance": recipe.splits.provenance,
    }


def train_one(job: tuple[Context, Spec]) -> Path:
    """Train a model into a folder of the experiment, and return the folder."""
    context, spec = job
    recipe = build(spec, context)
    duration = _duration(recipe, context)
    return context.train(recipe, spec.folder, progress=False, **duration).path


def _duration(recipe: Recipe, context: Context) -> dict[str, int]:
    if context.budget == "quick":
        return {"steps": QUICK_STEPS}
    return {"epochs": recipe.settings.epochs}
