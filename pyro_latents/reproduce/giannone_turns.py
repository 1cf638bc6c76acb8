"""Figure 3 of Giannone et al. (2019), with the angles measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_latents.data.affine import affine_matrix, rotate
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.registration import rotation_between
from pyro_latents.models.triplet_tvae import TripletTVAE
from pyro_latents.plots import image_rows
from pyro_latents.reproduce.experiment import (
    Budget,
    Context,
    Job,
    Result,
    experiment,
    mean_and_error,
)
from pyro_latents.reproduce.giannone import (
    BUDGETS,
    FAST,
    SHOWN,
    TAKES,
    Z_DIM,
    decoded,
    job_of,
    settings_of,
    triplets_of,
)
from pyro_latents.runs.recipe import Run
from pyro_latents.stories.story import Parts
from pyro_latents.stories.triplet_tvae.batches import shrunken, views
from pyro_latents.stories.triplet_tvae.metrics import image_codes

MAX_ANGLE, SHOWN_ANGLE = 45.0, 35.0  # degrees
MODELS = ("TVAE, matrix", "TVAE", "VAE+")
QUICK = Budget(
    name="quick",
    steps=2_500,
    numbers={**FAST, "batch_size": 50},
    test_images=500,
    own={"seeds": 3},
)
HOURS = replace(QUICK, name="hours", steps=6_000)


class Turns(NamedTuple):
    """How the angles of other images go with those of the triplets that `T` was inferred from."""

    correlation: float
    inverse_correlation: float
    slope: float
    inverse_slope: float


class Scores(NamedTuple):
    """The turns of a training's end and start, and those of images that were turned themselves."""

    trained: Turns
    untrained: Turns
    ceiling: Turns
    path: Path


@experiment("giannone-figure3", (QUICK, HOURS, BUDGETS[-1]), takes=TAKES)
def figure3(context: Context) -> Result:
    """A transformation inferred from one triplet, applied to other images (figure 3)."""
    data = context.data or "mnist"
    jobs = [job_of(context, kind, data, Z_DIM, seed=s) for kind in MODELS for s in context.seeds]
    found = context.apply(_scores, jobs)
    rows, figures = [], []
    for kind in MODELS:
        mine = [score for job, score in zip(jobs, found, strict=True) if job.label == kind]
        rows += [
            _row(kind, [score.trained for score in mine]),
            _row(f"{kind}, before training", [score.untrained for score in mine]),
            _row(f"{kind}, codes of turned images", [score.ceiling for score in mine]),
        ]
        if kind.startswith("TVAE"):
            name = f"giannone-figure3{'-matrix' if 'matrix' in kind else ''}"
            figures.append(_picture(Run(mine[0].path).parts, context, name))
    names = ("correlation, T", "correlation, 1/T", "slope, T", "slope, 1/T")
    return Result(
        title="Does T turn other images as it turned its own? Angle of the triplet and of them",
        columns=["model", *(column for name in names for column in (name, "error")), "seeds"],
        rows=rows,
        settings=settings_of(
            context, data, Z_DIM, triplets=triplets_of(context), seeds=len(context.seeds)
        ),
        figures=figures,
        notes=[
            f"Triplets are test images turned by up to {MAX_ANGLE:.0f} degrees to both sides; "
            "each T is applied to another test image. The angle of the result is that of the "
            "rotation that brings the image's reconstruction nearest to it. Perfect is a "
            "correlation and slope of 1 for T and of -1 for its inverse; what can be had is said "
            "by the codes of the other images turned as the triplet was.",
            "VAE+ has no T: half of the difference between the codes of the views is its. "
            "Means over seeds, with their standard errors. In the pictures the triplet is cropped "
            "as in training, and the codes of the other images are draws, as in the paper.",
        ],
    )


def turns(parts: Parts, test: Examples, *, triplets: int, seed: int) -> tuple[Turns, Turns]:
    """Return the turns of images by `T`, and of the codes of images turned as the triplets were.

    Args:
        parts: The parts of a TVAE or of VAE+.
        test: Images to make triplets of, and to turn.
        triplets: How many.
        seed: Of the choice of images and angles.
    """
    story: Any = parts.story
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(test), (2, triplets), generator=generator).to(test.device)
    angle = MAX_ANGLE * (2 * torch.rand(triplets, generator=generator) - 1)
    x, others = (shrunken(test.x[rows], story.shrink) for rows in index)
    both = [sign * angle.to(x).deg2rad() for sign in (1, -1)]
    x1, x2 = (rotate(x, turn) for turn in both)
    upright, *moved = transferred(parts, x1, x2, others)
    turned = [decoded(parts, image_codes(parts.guide, rotate(others, turn))) for turn in both]
    by_T, by_themselves = (
        _turns(angle, [rotation_between(upright, images).cpu() for images in pair])
        for pair in (moved, turned)
    )
    return by_T, by_themselves


def transferred(
    parts: Parts, x1: Tensor, x2: Tensor, others: Tensor, *, draw: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Infer transformations from views and inverse views, and apply them to other images.

    All are of shape `batch channels height width`. The transformation of VAE+ is half the
    difference of the codes. With ``draw`` the codes of the other images are drawn.

    Returns:
        The other images decoded as they are, under the transformation, and under its inverse.
    """
    z1, z2, z = (image_codes(parts.guide, images) for images in (x1, x2, others))
    if draw:
        with torch.no_grad():
            z = parts.guide.image_guide().posterior(others)["z"].rsample()
    if isinstance(parts.model, TripletTVAE):
        with torch.no_grad():
            T = parts.guide.transformation_posterior(z1, z2).mean
            r: Any = parts.model.transformation
            codes = z, r(z, T), r(z, r.inverse(T))
    else:
        T = (z1 - z2) / 2
        codes = z, z + T, z - T
    upright, moved, back = (decoded(parts, code) for code in codes)
    return upright, moved, back


def correlation(a: Tensor, b: Tensor) -> float:
    """Return the correlation of two samples; zero if one of them is constant."""
    return torch.corrcoef(torch.stack([a, b]))[0, 1].nan_to_num().item()


def slope(a: Tensor, b: Tensor) -> float:
    """Return the slope of the line through the origin that fits `b` best, by least squares."""
    return ((a * b).sum() / a.square().sum()).item()


def _turns(angle: Tensor, measured: list[Tensor]) -> Turns:
    return Turns(*(f(angle, turn) for f in (correlation, slope) for turn in measured))


def _row(label: str, found: list[Turns]) -> list[Any]:
    cells = [mean_and_error(list(values))[:2] for values in zip(*found, strict=True)]
    return [label, *(cell for pair in cells for cell in pair), len(found)]


def _scores(job: Job) -> Scores:
    """Train, and measure on test images; before training too."""
    options = {"triplets": triplets_of(job.context), "seed": job.context.seed}
    run = job.train()
    parts = run.parts
    trained, ceiling = turns(parts, parts.splits.test, **options)
    untrained, _ = turns(job.build(), parts.splits.test, **options)
    return Scores(trained, untrained, ceiling, run.path)


def _picture(parts: Parts, context: Context, name: str) -> Path:
    """One triplet in the first column, its transformation on other images in the rest."""
    story: Any = parts.story
    generator = torch.Generator().manual_seed(context.seed)
    x = parts.splits.test.x[: SHOWN + 1]
    turn = affine_matrix(x.new_tensor([SHOWN_ANGLE]).deg2rad()), x.new_zeros(1, 2)
    x1, x2 = (view.expand_as(x[1:]) for view in views(x[:1], turn, story, generator))
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        upright, moved, back = transferred(parts, x1, x2, x[1:], draw=True)
    rows = {
        "image": torch.cat([x[:1], upright]),
        "T": torch.cat([x1[:1], moved]),
        "inverse of T": torch.cat([x2[:1], back]),
    }
    return context.save(image_rows(rows), name)
