"""The models of Giannone et al. (2019), their training, and their codes of affNIST."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents import zoo
from pyro_latents.data.examples import Examples
from pyro_latents.data.sources import load
from pyro_latents.errors import UserError
from pyro_latents.recipes.recipe import Recipe, Run
from pyro_latents.recipes.triplet_tvae import image_codes
from pyro_latents.reproduce.experiment import Context
from pyro_latents.reproduce.parallel import in_processes

STORIES = {"VAE": "vae", "VAE+": "vae-plus", "TVAE": "triplet-tvae"}
# Training images (None for all), how long, and the schedule, by budget. Quick is a few minutes a
# TVAE on one core, hours half of one, and the paper's is that of appendix B for all three models.
QUICK_IMAGES = 20_000
DURATION = {"quick": {"steps": 1_200}, "hours": {"epochs": 8}, "paper": {"epochs": 200}}
SCHEDULE = {
    "quick": {"learning_rate": 1e-3, "halve_every": 0},
    "hours": {"learning_rate": 1e-3, "halve_every": 3},
    "paper": {"learning_rate": 1e-4, "halve_every": 50},
}
# Of affNIST and of each model's own data: labelled codes, and codes to classify.
PROBE = {"quick": (20_000, 4_000), "hours": (60_000, 10_000), "paper": (60_000, 10_000)}


@dataclass(frozen=True)
class Spec:
    """A model to train.

    Args:
        kind: ``VAE``, ``VAE+`` or ``TVAE``.
        data: What it is trained on.
        z_dim: Size of its codes.
        settings: Settings other than the recipe's.
    """

    kind: str
    data: str
    z_dim: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        own = [f"{name}-{value}" for name, value in self.settings.items()]
        return "-".join([STORIES[self.kind], self.data, str(self.z_dim), *own])


def build(spec: Spec, context: Context) -> Recipe:
    """Return the recipe of a spec, with the budget's hyper-parameters."""
    duration, schedule = DURATION[context.budget], SCHEDULE[context.budget]
    settings = {"epochs": duration["epochs"]} if "epochs" in duration else {}
    return zoo.recipe(
        f"{STORIES[spec.kind]}-mnist",
        seed=context.seed,
        data_dir=context.data_dir,
        limit_train=QUICK_IMAGES if context.budget == "quick" else None,
        **{"data": spec.data, "z_dim": spec.z_dim, "validation": 0},
        **{**settings, **schedule, **spec.settings},
    )


def train_one(job: tuple[Context, Spec]) -> Path:
    """Train a model into a folder of the experiment, and return the folder."""
    context, spec = job
    recipe = build(spec, context)
    return context.train(recipe, spec.folder, progress=False, **DURATION[context.budget]).path


def train_all(context: Context, specs: Sequence[Spec]) -> list[Recipe]:
    """Train models side by side and return the trained recipes, in the order of the specs."""
    paths = for_all(train_one, context, specs)
    return [Run(path).recipe for path in paths]


def for_all(function: Callable[[Any], Any], context: Context, specs: Sequence[Spec]) -> list[Any]:
    """Apply a function to every ``(context, spec)``, the longest trainings first."""
    order = sorted(range(len(specs)), key=lambda i: specs[i].kind != "TVAE")
    done = in_processes(function, [(context, specs[i]) for i in order], description="models")
    found = dict(zip(order, done, strict=True))
    return [found[i] for i in range(len(specs))]


def settings_of(context: Context, spec: Spec) -> dict[str, Any]:
    """Return what a result says of the training of its models, that of a TVAE among them."""
    recipe = build(Spec("TVAE", spec.data, spec.z_dim, spec.settings), context)
    kept = ("batch_size", "learning_rate", "halve_every", "mmd_weight", "transformation_weight")
    kept += ("transition_scale", "angle", "stretch", "shear", "shift", "crop")
    return {
        **{name: getattr(recipe.settings, name) for name in kept},
        **DURATION[context.budget],
        "optimiser": "Adam",
        "training_images": len(recipe.splits.train),
        "provenance": recipe.splits.provenance,
    }


def transfer_data(data: str, context: Context) -> tuple[Examples, Examples]:
    """Return labelled and test images that the models were not trained on.

    They are affNIST for the paper's data sets, and turned digits for the embedded ones, of the
    size that the encoder takes.
    """
    name = "rotated-digits" if data == "digits" else "affnist"
    splits = load(name, context.data_dir, validation=0)
    train, test = probe_sizes(splits.train, splits.test, context)
    return on_frame(train), on_frame(test)


def probe_sizes(train: Examples, test: Examples, context: Context) -> tuple[Examples, Examples]:
    """Return as many labelled and test images as the budget has."""
    labelled, tested = PROBE[context.budget]
    return train.take(slice(labelled)), test.take(slice(tested))


def on_frame(examples: Examples, size: int = 28) -> Examples:
    """Return images on a frame of the encoder's size: the middle of larger ones.

    The paper does not say how images of 40x40 pixels meet its encoder of 28x28. The middle keeps
    the scale of the strokes; shrunk digits would be a second shift of the domain.
    """
    height, width = examples.x.shape[-2:]
    if (height, width) == (size, size):
        return examples
    if min(height, width) < size:
        raise UserError(f"images of {height}x{width} pixels are too small for {size}x{size}.")
    top, left = (height - size) // 2, (width - size) // 2
    x = examples.x[..., top : top + size, left : left + size]
    return Examples(x, examples.y, provenance=examples.provenance)


def codes_of(recipe: Recipe, *parts: Examples) -> list[Tensor]:
    """Return the posterior means of images, on the device where they are quickest made."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    guide = recipe.guide.to(device)
    return [image_codes(guide, part.x.to(device)) for part in parts]


def labels_of(examples: Examples, like: Tensor) -> Tensor:
    """Return the labels on the device of the codes.

    Raises:
        UserError: if the data have no labels.
    """
    if examples.y is None:
        raise UserError("these data have no labels: give a data set of classes with --data.")
    return examples.y.to(like.device)
