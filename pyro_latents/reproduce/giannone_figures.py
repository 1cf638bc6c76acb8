"""Figures 3 and 4 of Giannone et al. (2019), and what they show as numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.data.affine import affine_matrix, rotate
from pyro_latents.evaluation.registration import rotation_between
from pyro_latents.models.triplet_tvae import TripletTVAE
from pyro_latents.plots import image_rows
from pyro_latents.reproduce.experiment import Cell, Context, Result, experiment
from pyro_latents.reproduce.giannone import (
    BUDGETS,
    TAKES,
    job_of,
    settings_of,
)
from pyro_latents.stories.story import Parts
from pyro_latents.stories.triplet_tvae.batches import views
from pyro_latents.stories.triplet_tvae.metrics import image_codes
from pyro_latents.stories.triplet_tvae.recipes import TripletTVAEStory

Z_DIM = 10  # the paper does not say; of the two sizes of table 1, the one with sharper draws
MAX_ANGLE = 45.0
SHOWN = 10
SHOWN_ANGLE = 35.0
TRIPLETS = 500  # whose transformations are applied to other images


@experiment("giannone-figure3", BUDGETS, takes=TAKES)
def figure3(context: Context) -> Result:
    """A transformation inferred from one triplet, applied to other images (figure 3)."""
    data, triplets = context.data or "mnist", _triplets(context)
    indirect = job_of(context, "TVAE", data, Z_DIM, indirect_views=True)
    jobs = [
        job_of(context, "TVAE", data, Z_DIM),
        replace(indirect, label="TVAE, indirect views"),
        job_of(context, "VAE+", data, Z_DIM),
    ]
    trained = context.train(jobs)
    test = trained[0].splits.test
    generator = torch.Generator().manual_seed(context.seed)
    index = torch.randint(len(test), (2, triplets), generator=generator)
    angle = MAX_ANGLE * (2 * torch.rand(triplets, generator=generator) - 1)
    x, others = test.take(index[0]).x, test.take(index[1]).x
    x1, x2 = (rotate(x, sign * angle.to(x).deg2rad()) for sign in (1, -1))
    rows: list[list[Cell]] = []
    for job, parts in zip(jobs, trained, strict=True):
        upright, *moved = transferred(parts, x1, x2, others)
        turns = [rotation_between(upright, images).cpu() for images in moved]
        correlations, slopes = ([f(angle, turn) for turn in turns] for f in (correlation, slope))
        rows.append([job.label, *correlations, *slopes])
    return Result(
        title="Does T turn other images as it turned its own? Angle of the triplet and of them",
        columns=["model", "correlation, T", "correlation, 1/T", "slope, T", "slope, 1/T"],
        rows=rows,
        settings=_settings(context, data),
        figures=[
            _picture(trained[0], context, "giannone-figure3"),
            _picture(trained[1], context, "giannone-figure3-indirect-views"),
        ],
        notes=[
            f"Triplets are test images turned by up to {MAX_ANGLE:.0f} degrees to both sides; "
            "each T is applied to another test image. The angle of the result is that of the "
            "rotation that brings the image's reconstruction nearest to it. Perfect is a "
            "correlation and slope of 1 for T and of -1 for its inverse.",
            "With indirect views, each view is rendered from r(z, T) too, as the image is from z "
            "(`--indirect-views`; the paper does so for the image alone).",
            "VAE+ has no T: half of the difference between the codes of the views is its.",
        ],
    )


@experiment("giannone-figure4", BUDGETS, takes=TAKES)
def figure4(context: Context) -> Result:
    """Half way between the codes of two opposite views (figure 4)."""
    data = context.data or "mnist"
    jobs = [job_of(context, kind, data, Z_DIM) for kind in ("TVAE", "VAE", "VAE+")]
    trained = context.train(jobs)
    generator = torch.Generator().manual_seed(context.seed)
    maker = trained[0].batches("test")
    index = torch.randint(len(maker), (_triplets(context),), generator=generator)
    x, x1, x2 = maker(index, generator)
    pictures = {"image": x, "view": x1, "inverse view": x2}
    rows: list[list[Cell]] = []
    for job, parts in zip(jobs, trained, strict=True):
        z, z1, z2 = (image_codes(parts.guide, part) for part in (x, x1, x2))
        middle = pictures[job.label] = decoded(parts.model, (z1 + z2) / 2)
        error, floor = (
            (picture - x).square().mean().item() for picture in (middle, decoded(parts.model, z))
        )
        rows.append([job.label, error, floor, error / floor])
    figure = image_rows({name: images[:SHOWN] for name, images in pictures.items()})
    return Result(
        title="Squared error per pixel of the image decoded half way between its two views",
        columns=["model", "half way", "reconstruction", "ratio"],
        rows=rows,
        settings=_settings(context, data),
        figures=[context.save(figure, "giannone-figure4")],
        notes=["The views are those of training, crops included. The paper has pictures only."],
    )


def transferred(
    parts: Parts, x1: Tensor, x2: Tensor, others: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Infer transformations from pairs of views and apply them to other images.

    Args:
        parts: A trained triplet TVAE, or a VAE, whose transformation is half the difference.
        x1: Views of images, of shape `batch channels height width`.
        x2: The inverse views, of the same shape.
        others: The images to transform, of the same shape.

    Returns:
        The other images decoded as they are, under the transformation, and under its inverse.
    """
    model: Any = parts.model
    z1, z2, z = (image_codes(parts.guide, images) for images in (x1, x2, others))
    if isinstance(parts.model, TripletTVAE):
        with torch.no_grad():
            T = parts.guide.transformation_posterior(z1, z2).mean
            r: Any = model.transformation
            codes = z, r(z, T), r(z, r.inverse(T))
    else:
        T = (z1 - z2) / 2
        codes = z, z + T, z - T
    upright, moved, back = (decoded(model, code) for code in codes)
    return upright, moved, back


def decoded(model: Any, z: Tensor) -> Tensor:
    """Return the mean image of codes, of shape `batch *x_shape`."""
    with torch.no_grad():
        return model.likelihood(model.decoder(z)).mean


def correlation(a: Tensor, b: Tensor) -> float:
    """Return the correlation of two samples; zero if one of them is constant."""
    return torch.corrcoef(torch.stack([a, b]))[0, 1].nan_to_num().item()


def slope(a: Tensor, b: Tensor) -> float:
    """Return the slope of the line through the origin that fits `b` best, by least squares."""
    return ((a * b).sum() / a.square().sum()).item()


def _triplets(context: Context) -> int:
    return min(TRIPLETS, context.budget.test_images or TRIPLETS)


def _settings(context: Context, data: str) -> dict[str, Any]:
    own = {"triplets": _triplets(context), "z_dim": Z_DIM}
    return {**settings_of(context, data, Z_DIM), **own}


def _picture(parts: Parts, context: Context, name: str) -> Path:
    """One triplet in the first column, its transformation on other images in the rest."""
    assert isinstance(parts.story, TripletTVAEStory)
    generator = torch.Generator().manual_seed(context.seed)
    x = parts.splits.test.x[: SHOWN + 1]
    turn = affine_matrix(x.new_tensor([SHOWN_ANGLE]).deg2rad()), x.new_zeros(1, 2)
    x1, x2 = views(x[:1], turn, parts.story.build_ranges(), generator)
    others = x[1:]
    upright, moved, back = transferred(parts, x1.expand_as(others), x2.expand_as(others), others)
    rows = {
        "image": torch.cat([x[:1], upright]),
        "T": torch.cat([x1, moved]),
        "inverse of T": torch.cat([x2, back]),
    }
    return context.save(image_rows(rows), name)
