"""Giannone et al. (2019): the models, their likelihoods, and figures 3 and 4 with numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.data.affine import affine_matrix, rotate
from pyro_latents.data.batches import Binarised, Plain
from pyro_latents.evaluation.evidence import log_evidence_of_batches
from pyro_latents.evaluation.registration import rotation_between
from pyro_latents.models.triplet_tvae import TripletTVAE
from pyro_latents.plots import image_rows
from pyro_latents.reproduce.experiment import Budget, Context, Job, Result, experiment
from pyro_latents.stories.story import Parts
from pyro_latents.stories.triplet_tvae.batches import views
from pyro_latents.stories.triplet_tvae.metrics import image_codes
from pyro_latents.stories.triplet_tvae.recipes import TripletTVAEStory

TAKES = ("mnist", "fashion-mnist", "digits")
# Labelled codes, and codes to classify: of affNIST, and of each model's own data.
_ALL = {"labelled": 60_000, "tested": 10_000}
BUDGETS = (
    # A few minutes a TVAE on one core; half an hour; appendix B, for all three models.
    Budget(
        name="quick",
        images=20_000,
        steps=1_200,
        numbers={"learning_rate": 1e-3, "halve_every": 0},
        test_images=500,
        own={"labelled": 20_000, "tested": 4_000},
    ),
    Budget(
        name="hours",
        numbers={"epochs": 8, "learning_rate": 1e-3, "halve_every": 3},
        test_images=1_000,
        own=_ALL,
    ),
    Budget(
        name="paper",
        numbers={"epochs": 200, "learning_rate": 1e-4, "halve_every": 50},
        test_images=10_000,
        own=_ALL,
    ),
)
STORIES = {"VAE": "vae", "VAE+": "vae-plus", "TVAE": "triplet-tvae"}
SETTINGS = (
    *("batch_size", "learning_rate", "halve_every", "mmd_weight", "transformation_weight"),
    *("transition_scale", "angle", "shear", "shift", "crop"),
)
LIKELIHOODS = {"TVAE": -92.0, "VAE": -93.0, "VAE+": -94.0}  # section 3, in nats
# Of the figures: of the two sizes of table 1, which the paper leaves open, that of sharper draws;
# triplets whose transformations are applied to other images; degrees; images in a row.
Z_DIM, TRIPLETS = 10, 500
MAX_ANGLE, SHOWN_ANGLE, SHOWN = 45.0, 35.0, 10


def job_of(context: Context, kind: str, data: str, z_dim: int, **numbers: Any) -> Job:
    """Return the training of a model, one of `STORIES`, on these data."""
    own = [f"{name} {value}" for name, value in numbers.items()]
    return context.job(
        f"{STORIES[kind]}-mnist",
        " ".join([STORIES[kind], data, str(z_dim), *own]),
        numbers={"data": data, "z_dim": z_dim, "validation": 0, **numbers},
        label=kind,
        # A TVAE takes several times as long as a VAE.
        cost=kind == "TVAE",
    )


def settings_of(context: Context, data: str, z_dim: int, **own: Any) -> dict[str, Any]:
    """Return what a result says of the training of its models, that of a TVAE among them."""
    return {**job_of(context, "TVAE", data, z_dim).settings(*SETTINGS), **own}


@experiment("giannone-likelihood", BUDGETS, takes=TAKES)
def likelihood(context: Context) -> Result:
    """Marginal likelihood of test images, importance-weighted (section 3)."""
    data, budget = context.data or "mnist", context.budget
    found = context.apply(_likelihoods, [job_of(context, k, data, 10) for k in LIKELIHOODS])
    own = {"test_images": budget.test_images, "particles": budget.particles}
    return Result(
        title="log p(x) of test images (nats), 10 dimensions",
        columns=["model", "paper (approx.)", "grey", "binarised", "k-hat>0.7 (%)"],
        rows=[
            [kind, paper if data == "mnist" else None, *ours]
            for (kind, paper), ours in zip(LIKELIHOODS.items(), found, strict=True)
        ],
        settings=settings_of(context, data, 10, **own),
        notes=[
            "All models are trained on grey pixels by cross-entropy, as in the paper. `grey` is "
            "that cross-entropy under the model, `binarised` the density of pixels drawn once as "
            "Bernoulli of their grey values; the paper does not say which of the two it reports."
        ],
    )


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
    rows = []
    for job, parts in zip(jobs, trained, strict=True):
        upright, *moved = transferred(parts, x1, x2, others)
        turns = [rotation_between(upright, images).cpu() for images in moved]
        correlations, slopes = ([f(angle, turn) for turn in turns] for f in (correlation, slope))
        rows.append([job.label, *correlations, *slopes])
    return Result(
        title="Does T turn other images as it turned its own? Angle of the triplet and of them",
        columns=["model", "correlation, T", "correlation, 1/T", "slope, T", "slope, 1/T"],
        rows=rows,
        settings={**settings_of(context, data, Z_DIM, triplets=triplets), "z_dim": Z_DIM},
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
    data, triplets = context.data or "mnist", _triplets(context)
    jobs = [job_of(context, kind, data, Z_DIM) for kind in LIKELIHOODS]
    trained = context.train(jobs)
    generator = torch.Generator().manual_seed(context.seed)
    maker = trained[0].batches("test")
    index = torch.randint(len(maker), (triplets,), generator=generator)
    x, x1, x2 = maker(index, generator)
    pictures = {"image": x, "view": x1, "inverse view": x2}
    rows = []
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
        settings={**settings_of(context, data, Z_DIM, triplets=triplets), "z_dim": Z_DIM},
        figures=[context.save(figure, "giannone-figure4")],
        notes=["The views are those of training, crops included. The paper has pictures only."],
    )


def transferred(
    parts: Parts, x1: Tensor, x2: Tensor, others: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Infer transformations from views and inverse views, and apply them to other images.

    All are of shape `batch channels height width`. The transformation of a VAE is half the
    difference of the codes.

    Returns:
        The other images decoded as they are, under the transformation, and under its inverse.
    """
    z1, z2, z = (image_codes(parts.guide, images) for images in (x1, x2, others))
    if isinstance(parts.model, TripletTVAE):
        with torch.no_grad():
            T = parts.guide.transformation_posterior(z1, z2).mean
            r: Any = parts.model.transformation
            codes = z, r(z, T), r(z, r.inverse(T))
    else:
        T = (z1 - z2) / 2
        codes = z, z + T, z - T
    upright, moved, back = (decoded(parts.model, code) for code in codes)
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


def _picture(parts: Parts, context: Context, name: str) -> Path:
    """One triplet in the first column, its transformation on other images in the rest."""
    assert isinstance(parts.story, TripletTVAEStory)
    generator = torch.Generator().manual_seed(context.seed)
    x = parts.splits.test.x[: SHOWN + 1]
    turn = affine_matrix(x.new_tensor([SHOWN_ANGLE]).deg2rad()), x.new_zeros(1, 2)
    x1, x2 = views(x[:1], turn, parts.story, generator)
    others = x[1:]
    upright, moved, back = transferred(parts, x1.expand_as(others), x2.expand_as(others), others)
    rows = {
        "image": torch.cat([x[:1], upright]),
        "T": torch.cat([x1, moved]),
        "inverse of T": torch.cat([x2, back]),
    }
    return context.save(image_rows(rows), name)


def _likelihoods(job: Job) -> list[float]:
    """Those of grey and of binarised pixels, and the share of images with a bad k-hat."""
    context, parts = job.context, job.train().parts
    pair = parts.story.image_pair(parts)
    assert pair is not None
    test = parts.splits.test.take(slice(context.budget.test_images))
    evidence = partial(log_evidence_of_batches, *pair, seed=context.seed, progress=False)
    particles = context.budget.particles
    grey, binary = (
        evidence(maker, num_particles=particles) for maker in (Plain(test), Binarised(test))
    )
    bad = 100 * (grey.k_hat > 0.7).double().mean().item()
    return [grey.log_evidence.mean().item(), binary.log_evidence.mean().item(), bad]
