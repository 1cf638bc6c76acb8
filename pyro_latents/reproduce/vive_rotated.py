"""Digits turned by any angle: does the pose of Vivé's models turn with them, and the code not?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.data.examples import Splits
from pyro_latents.data.rotated import in_chunks
from pyro_latents.evaluation.codes import codes
from pyro_latents.evaluation.knn import knn_accuracy
from pyro_latents.guides.refined import unrefined
from pyro_latents.programs import centre
from pyro_latents.reproduce.experiment import (
    Context,
    Job,
    Result,
    experiment,
    labels,
    mean_and_error,
)
from pyro_latents.reproduce.vive import BUDGETS, decoded, job_of, settings_of
from pyro_latents.stories.pose_tvae.metrics import (
    ANGLES,
    cluster_accuracy,
    equivariance,
    ink_angle,
    svm_scores,
)
from pyro_latents.stories.story import Parts

UPRIGHT = ("mnist", "digits")
TAKES = (*UPRIGHT, *(f"rotated-{data}" for data in UPRIGHT))
# Of each model its label's end, and its numbers.
MODELS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("VAE", "", {}),
    ("Affine-DTVAE", "", {}),
    ("Affine-DTVAE", ", five", {"warp": "affine5"}),
    ("Affine-DTVAE", ", polar", {"warp": "affine5", "localiser": "polar"}),
)
AXIS = "axis of the ink"
NOTES = (
    "The pose is all six numbers of the matrix, as in the thesis, or `five`, the angle among "
    "them. `polar` reads the angle off circular convolutions: neither searches over turns. `axis "
    "of the ink` is the long axis of an image, towards where it reaches further: nothing is "
    "learned.",
    "The thesis has 1,500 images; these are all, turned by 0 to 350 degrees, the same for every "
    "training. Means over seeds with standard errors, which are of the trainings alone.",
)

# Of each figure the values, one a training; None where there is none.
Values = Sequence[Sequence[float | None]]


@experiment("vive-rotated", BUDGETS, takes=TAKES)
def rotated(context: Context) -> Result:
    """Whether the inferred pose turns with the digit, and the reference image does not."""
    context = _turned(context)
    by_ink = _followed(context, _splits(context), _axis)
    return _result(
        context,
        "Rotated test digits: circular correlation of pose and angle, and what changes",
        ("within a digit", "within a class", "pooled", "input", "reference"),
        {AXIS: [[figure] for figure in by_ink], **_over_seeds(context, _poses)},
        "Test digits, evenly taken from all, are turned by 0, 10, ..., 350 degrees. `input` and "
        "`reference` are the mean squared changes of an image and of its inferred reference image "
        "by that, as shares of the difference between two images; of the VAE, which has no pose, "
        "the reconstruction is the reference image. Digits that half a turn hardly changes, such "
        "as 0, 1 and 8, lower what can be had within a class.",
        test_images=context.budget.test_images,
        angles=ANGLES,
    )


@experiment("vive-rotated-classes", BUDGETS, takes=TAKES)
def rotated_classes(context: Context) -> Result:
    """How well the classes of turned digits are told apart once their turn is taken out."""
    context = _turned(context)
    splits = _splits(context)
    train, test = splits.train, splits.test
    pixels = {
        "pixels": [train.x, test.x],
        f"pixels, turned by the {AXIS}": [in_chunks(_upright, x) for x in (train.x, test.x)],
        "pixels before they were turned": [part.extras["upright"] for part in (train, test)],
    }
    told = {name: _told(splits, x, standardise=False) for name, x in pixels.items()}
    alone = {name: [[figure] for figure in figures] for name, figures in told.items()}
    return _result(
        context,
        "Classes of rotated test digits, each turned by an angle of its own, by their codes (%)",
        ("linear", "5 neighbours", "10 clusters"),
        {**alone, **_over_seeds(context, _classes)},
        "Codes are means of q(z | x), standardised for the linear support vector machine, which "
        "learns from all training digits; among these are the neighbours. The clusters are ten of "
        "k-means on the test digits, each named by a class of its own so that most digits are "
        "right: by their labels. A turned 6 may be a 9, which no figure allows for.",
    )


def _turned(context: Context) -> Context:
    """The same of turned digits."""
    data = (context.data or "mnist").removeprefix("rotated-")
    return replace(context, data=f"rotated-{data}")


def _jobs(context: Context) -> list[Job]:
    """The trainings of a seed."""
    return [job_of(context, kind, 20, suffix=own, **numbers) for kind, own, numbers in MODELS]


def _splits(context: Context) -> Splits:
    """The data of all trainings."""
    return _jobs(context)[0].build().splits


def _over_seeds(
    context: Context, measured: Callable[[Job], list[float | None]]
) -> dict[str, Values]:
    """What is measured of each model."""
    trainings = [_jobs(replace(context, seed=seed)) for seed in context.seeds]
    found = iter(context.apply(measured, [job for jobs in trainings for job in jobs]))
    by_seed = [[next(found) for _ in jobs] for jobs in trainings]
    by_model = [list(zip(*own, strict=True)) for own in zip(*by_seed, strict=True)]
    return {job.label: own for job, own in zip(trainings[0], by_model, strict=True)}


def _result(
    context: Context,
    title: str,
    columns: Sequence[str],
    found: Mapping[str, Values],
    note: str,
    **own: Any,
) -> Result:
    """A row for each model, of every figure the mean over seeds and its standard error."""
    rows: list[list[Any]] = []
    for name, values in found.items():
        told = [[value for value in each if value is not None] for each in values]
        rows.append([name, *(cell for each in told for cell in mean_and_error(each)[:2])])
    return Result(
        title=title,
        columns=["model", *(name for column in columns for name in (column, "error"))],
        rows=rows,
        settings=settings_of(context, seeds=len(context.seeds), **own),
        notes=[note, *NOTES],
    )


def _poses(job: Job) -> list[float | None]:
    """Train, and turn test digits."""
    parts = job.train().parts
    found = _followed(job.context, parts.splits, lambda x: pose_and_reference(parts, x))
    return found if hasattr(parts.model, "warp") else [None, None, None, *found[3:]]


def _followed(
    context: Context, splits: Splits, inferred: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> list[float | None]:
    """The correlations of what is inferred with the angle, and what turning changes."""
    count = min(context.budget.test_images or len(splits.test), len(splits.test))
    test = splits.test.take(torch.arange(count) * (len(splits.test) // count))
    found = equivariance(test.extras["upright"], inferred, test.y)
    within_class = fmean(found.by_class)
    return [found.within, within_class, found.pooled, found.input_change, found.reference_change]


def _axis(x: Tensor) -> tuple[Tensor, Tensor]:
    """The long axis of the ink, and the images turned back by it."""
    angle = ink_angle(x)
    return angle, rotate(x, -angle)


def _upright(x: Tensor) -> Tensor:
    return _axis(x)[1]


def _classes(job: Job) -> list[float | None]:
    """Train; how well the codes of turned digits tell the classes."""
    parts = job.train().parts
    guide, splits = unrefined(parts.guide), parts.splits
    return _told(splits, [codes(guide, part.x) for part in (splits.train, splits.test)])


def _told(splits: Splits, rows: list[Tensor], *, standardise: bool = True) -> list[float | None]:
    """Accuracies by a line, by neighbours and by clusters, of training and of test rows."""
    known, asked = (part.flatten(1) for part in rows)
    y, truth = labels(splits.train), labels(splits.test)
    return [
        svm_scores(known, y, asked, truth, folds=0, standardise=standardise).test,
        knn_accuracy(known, y, asked, truth),
        cluster_accuracy(asked, truth),
    ]


def pose_and_reference(parts: Parts, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the angle of the inferred pose in radians, and the image in its reference pose.

    Of a VAE the angle is zero, and the image its reconstruction.
    """
    posterior = parts.guide.posterior(x)
    image = decoded(parts, centre(posterior["z"]))
    if "u" not in posterior:
        return x.new_zeros(len(x)), image
    return parts.model.warp.angle(parts.model.prior.pose(centre(posterior["u"]))), image
