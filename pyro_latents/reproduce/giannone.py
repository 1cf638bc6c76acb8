"""Giannone et al. (2019): the models that are compared, and figure 4 with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_latents.evaluation.paired import mean_and_standard_error
from pyro_latents.plots import image_rows
from pyro_latents.reproduce.experiment import Budget, Context, Job, Result, experiment
from pyro_latents.stories.story import Parts, by_muon
from pyro_latents.stories.triplet_tvae.metrics import image_codes

TAKES = ("mnist", "fashion-mnist", "digits")
# Appendix B's, and what is quicker by the bound on validation images.
ADAM = {"optimizer": "adam", "schedule": "halve"}
FAST = by_muon(2e-3, halve_every=0)
# Labelled codes, and codes to classify: of affNIST, and of each model's own data.
_ALL = {"labelled": 60_000, "tested": 10_000}
BUDGETS = (
    # Minutes a TVAE on one core, twice: few images, all of them. Then appendix B, for all models.
    Budget(
        name="quick",
        images=20_000,
        steps=1_200,
        numbers={**ADAM, "learning_rate": 1e-3, "halve_every": 0},
        test_images=500,
        particles=200,
        own={"labelled": 20_000, "tested": 4_000, "seeds": 1},
    ),
    Budget(
        name="hours",
        numbers={**FAST, "epochs": 6},
        test_images=10_000,
        particles=200,
        # Epochs of the models whose likelihoods are told; their size is chosen by fewer.
        own={**_ALL, "seeds": 3, "longer": 16},
    ),
    Budget(
        name="paper",
        numbers={**ADAM, "epochs": 200, "learning_rate": 1e-4, "halve_every": 50},
        test_images=10_000,
        particles=1_000,
        own={**_ALL, "seeds": 3},
    ),
)
SETTINGS = (
    *("batch_size", "learning_rate", "schedule", "halve_every", "coherence", "coherence_weight"),
    *("generators", "transition_scale", "z_dim", "angle", "shear", "shift", "crop", "shrink"),
)
COMPARED = ("TVAE", "VAE", "VAE+", "VAE+, views without KL")  # in figures 2 and 4
# Of the figures: of the two sizes of table 1, which the paper leaves open, that of sharper draws;
# triplets whose transformations are applied to other images; images in a row.
Z_DIM, TRIPLETS, SHOWN = 10, 500, 10


@dataclass(frozen=True)
class Kind:
    """One of the models that are compared.

    Args:
        recipe: The recipe that it is a variant of.
        numbers: Hyper-parameters other than the recipe's.
        cost: How long it takes beside others.
    """

    recipe: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 3.0


KINDS = {
    "VAE": Kind("vae-plus-mnist", {"members": "image"}, 1.0),
    "VAE+": Kind("vae-plus-mnist"),
    "VAE+, views without KL": Kind("vae-plus-mnist", {"views_kl": False}),
    "TVAE": Kind("triplet-tvae-mnist", cost=4.0),
    "TVAE, KL per triplet": Kind("triplet-tvae-mnist", {"coherence": "kl"}, 4.0),
    "TVAE, matrix": Kind("triplet-tvae-matrix-mnist", cost=5.0),
}


def job_of(
    context: Context, kind: str, data: str, z_dim: int, *, seed: int | None = None, **numbers: Any
) -> Job:
    """Return the training of a model, one of `KINDS`, on these data."""
    model, seed = KINDS[kind], context.seed if seed is None else seed
    named = {**model.numbers, **numbers}
    words = [f"{name} {value}" for name, value in named.items()]
    if seed != context.seed:
        words.append(f"seed {seed}")
    return context.job(
        model.recipe,
        " ".join([model.recipe.removesuffix("-mnist"), data, str(z_dim), *words]),
        numbers={"data": data, "z_dim": z_dim, "validation": held_out(data), **named},
        label=kind,
        seed=seed,
        cost=model.cost,
    )


def held_out(data: str) -> int:
    """Return how many images nothing is trained on: settings are chosen with them."""
    return 180 if data == "digits" else 10_000


def settings_of(context: Context, data: str, z_dim: int, **own: Any) -> dict[str, Any]:
    """Return what a result says of the training of its models, that of a TVAE among them."""
    return {**job_of(context, "TVAE", data, z_dim).settings(*SETTINGS), **own}


@experiment("giannone-figure4", BUDGETS, takes=TAKES)
def figure4(context: Context) -> Result:
    """Half way between the codes of two opposite views (figure 4)."""
    data, triplets = context.data or "mnist", triplets_of(context)
    jobs = [job_of(context, kind, data, Z_DIM) for kind in COMPARED]
    trained = context.train(jobs)
    generator = torch.Generator().manual_seed(context.seed)
    maker = trained[0].batches("test")
    index = torch.randperm(len(maker), generator=generator)[:triplets]
    x, x1, x2 = maker(index, generator)
    pictures = {"image": x, "view": x1, "inverse view": x2, "pixels": (x1 + x2) / 2}
    half_way, floors = {"pixels": _squared_error(pictures["pixels"], x)}, {}
    for job, parts in zip(jobs, trained, strict=True):
        z, z1, z2 = (image_codes(parts.guide, part) for part in (x, x1, x2))
        pictures[job.label] = decoded(parts, (z1 + z2) / 2)
        half_way[job.label] = _squared_error(pictures[job.label], x)
        floors[job.label] = _squared_error(decoded(parts, z), x).mean().item()
    rows = []
    for name, error in half_way.items():
        floor = floors.get(name)
        cells = [
            *mean_and_standard_error(error),
            *mean_and_standard_error(error - half_way["VAE"]),
        ]
        rows.append([name, *cells, floor, None if floor is None else cells[0] / floor])
    figure = image_rows({name: images[:SHOWN] for name, images in pictures.items()})
    return Result(
        title="Squared error per pixel of the image decoded half way between its two views",
        columns=["model", "half way", "error", "less the VAE's", "error"]
        + ["reconstruction", "ratio"],
        rows=rows,
        settings=settings_of(context, data, Z_DIM, triplets=triplets),
        figures=[context.save(figure, "giannone-figure4")],
        notes=[
            "The views are those of training, crops included. One training of each model: errors "
            "are standard errors over triplets, of differences over the same ones. `pixels` is "
            "the mean of the two views themselves. The paper has pictures only."
        ],
    )


def _squared_error(images: Tensor, x: Tensor) -> Tensor:
    """Of each image, the mean over its pixels."""
    return (images - x).square().flatten(1).mean(1)


def decoded(parts: Parts, z: Tensor) -> Tensor:
    """Return the mean image of codes, of shape `batch *x_shape`."""
    model: Any = parts.story.alone(parts)[0]
    with torch.no_grad():
        return model.likelihood(model.decoder(z)).mean


def triplets_of(context: Context) -> int:
    """Return how many triplets a figure is measured on."""
    return min(TRIPLETS, context.budget.test_images or TRIPLETS)
