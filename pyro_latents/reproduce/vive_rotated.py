"""Digits turned by any angle: does the pose of Vivé's models turn with them, and the code not?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from torch import Tensor

from pyro_latents.data.examples import Splits
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
    svm_scores,
)
from pyro_latents.stories.story import Parts

Value = float | None

TURNS: dict[str, Any] = {"warp": "affine5", "num_turns": 8}
POLAR: dict[str, Any] = {"warp": "affine5", "localiser": "polar"}
UPRIGHT = ("mnist", "digits")
TAKES = (*UPRIGHT, *(f"rotated-{data}" for data in UPRIGHT))
POSES = (
    "Without `turns` or `polar` the pose is all six numbers of the matrix, as in the thesis; with "
    "them five, the angle among them. `turns` chooses from eight turns for each image, else "
    "half-turned digits are local optima; `polar` has an angle that turns along with the image, "
    "and searches nothing. Means over seeds, with their standard errors."
)


@experiment("vive-rotated", BUDGETS, takes=TAKES)
def rotated(context: Context) -> Result:
    """Whether the inferred pose turns with the digit, and the reference image does not."""
    found = _over_seeds(context, _followed)
    columns = ("within a digit", "within a class", "worst class", "pooled")
    changes = ("input mse", "reference mse", "ratio")
    return Result(
        title="Rotated test digits: circular correlation of pose and angle, and what changes",
        columns=["model", *(name for c in columns for name in (c, "error")), *changes, "seeds"],
        rows=[
            [name, *(cell for each in values[:4] for cell in _mean(each))]
            + [*(_mean(each)[0] for each in values[4:]), len(values[-1])]
            for name, values in found.items()
        ],
        settings=settings_of(context, test_images=context.budget.test_images, angles=ANGLES),
        notes=[
            "Each test digit is turned by 0, 10, ..., 350 degrees. Mean squared changes are from "
            "the upright digit and from its reference image; of the VAE, which has no pose, the "
            "reconstruction is the reference image.",
            POSES,
        ],
    )


@experiment("vive-rotated-classes", BUDGETS, takes=TAKES)
def rotated_classes(context: Context) -> Result:
    """How well the classes of turned digits are told apart once their turn is taken out."""
    found = {**_without_network(context), **_over_seeds(context, _classes)}
    columns = ("linear (%)", "5 neighbours (%)", "10 clusters (%)")
    return Result(
        title="Classes of rotated test digits, each turned by an angle of its own, by their codes",
        columns=["codes", *(name for c in columns for name in (c, "error")), "seeds"],
        rows=[
            [name, *(cell for each in values for cell in _mean(each))] + [len(values[0])]
            for name, values in found.items()
        ],
        settings=settings_of(context, neighbours_of=context.budget.test_images),
        notes=[
            "Codes are means of q(z | x), standardised for the machine. A linear "
            "support vector machine learns from all training digits, turned as well, and of the "
            "first test digits five nearest neighbours among these vote. The clusters are ten of "
            "k-means on the codes of the test digits alone, each named by a class of its own. "
            "Pixels need no network: as they are turned, and of the digits before they were.",
            POSES,
        ],
    )


def _over_seeds(
    context: Context, measured: Callable[[Job], list[Value]]
) -> dict[str, list[list[Value]]]:
    """What is measured of each model: of every figure the values, one a seed."""
    trainings = [_jobs(replace(_turned(context), seed=seed)) for seed in context.seeds]
    found = iter(context.apply(measured, [job for jobs in trainings for job in jobs]))
    by_seed = [[next(found) for _ in jobs] for jobs in trainings]
    values = [list(map(list, zip(*own, strict=True))) for own in zip(*by_seed, strict=True)]
    return {job.label: own for job, own in zip(trainings[0], values, strict=True)}


def _turned(context: Context) -> Context:
    """The same of turned digits."""
    data = (context.data or "mnist").removeprefix("rotated-")
    return replace(context, data=f"rotated-{data}")


def _jobs(context: Context) -> list[Job]:
    """The trainings of a seed."""
    posed = ("Affine-TVAE", "Affine-DTVAE")
    jobs = [job_of(context, kind, 20) for kind in ("VAE", *posed)]
    jobs += [job_of(context, kind, 20, suffix=", turns", **TURNS) for kind in posed]
    return [*jobs, job_of(context, "Affine-DTVAE", 20, suffix=", polar", **POLAR)]


def _followed(job: Job) -> list[Value]:
    """Train; the correlations, none of a model without a pose, and the mean squared changes."""
    parts = job.train().parts
    test = parts.splits.test.take(slice(job.context.budget.test_images))
    following = partial(pose_angle, parts), partial(reference, parts)
    found = equivariance(test.extras["upright"], *following, test.y)
    angles = [found.within, fmean(found.by_class), min(found.by_class), found.pooled]
    changes = [found.input_change, found.reference_change]
    ratio = found.reference_change / found.input_change
    return [*(angles if hasattr(parts.model, "warp") else [None] * 4), *changes, ratio]


def _classes(job: Job) -> list[Value]:
    """Train; how well the codes of turned digits tell the classes."""
    parts = job.train().parts
    guide, splits = unrefined(parts.guide), parts.splits
    return _told(
        job.context, splits, [codes(guide, part.x) for part in (splits.train, splits.test)]
    )


def _without_network(context: Context) -> dict[str, list[list[Value]]]:
    """The same of the pixels, turned and upright."""
    splits = _jobs(_turned(context))[0].build().splits
    both = (splits.train, splits.test)
    pixels = {
        "pixels": [part.x.flatten(1) for part in both],
        "pixels, upright": [part.extras["upright"].flatten(1) for part in both],
    }
    found = {
        name: _told(context, splits, rows, standardise=False) for name, rows in pixels.items()
    }
    return {name: [[figure] for figure in figures] for name, figures in found.items()}


def _told(
    context: Context, splits: Splits, rows: list[Tensor], *, standardise: bool = True
) -> list[Value]:
    """Accuracies by a line, by neighbours and by clusters, of training and of test rows."""
    (known, asked), (y, truth) = rows, map(labels, (splits.train, splits.test))
    first = slice(context.budget.test_images)
    return [
        svm_scores(known, y, asked, truth, folds=0, standardise=standardise).test,
        knn_accuracy(known, y, asked[first], truth[first]),
        cluster_accuracy(asked, truth),
    ]


def _mean(values: list[Value]) -> list[Value]:
    """The mean over seeds and its standard error, where there is something to say."""
    return mean_and_error([value for value in values if value is not None])[:2]


def pose_angle(parts: Parts, x: Tensor) -> Tensor:
    """Return the angle of the inferred pose in radians, zero for a model without a pose."""
    posterior = parts.guide.posterior(x)
    if "u" not in posterior:
        return x.new_zeros(len(x))
    return parts.model.warp.angle(parts.model.prior.pose(centre(posterior["u"])))


def reference(parts: Parts, x: Tensor) -> Tensor:
    """Return the inferred image in its reference pose; of a VAE the reconstruction."""
    return decoded(parts, centre(parts.guide.posterior(x)["z"]))
