"""What Vivé's thesis hangs on: table 1 with one change at a time, and local minima (figure 12)."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from pyro_latents.checks.statistics import IMAGE_STATISTICS
from pyro_latents.evaluation.codes import codes
from pyro_latents.guides.refined import unrefined
from pyro_latents.reproduce.experiment import Context, Job, Result, experiment, labels
from pyro_latents.reproduce.vive import BUDGETS, TABLE1, decoded, job_of, settings_of
from pyro_latents.reproduce.vive_figures import GRID, gridded, panelled, terms_of_test
from pyro_latents.stories.pose_tvae.metrics import svm_scores

# Of the thesis' table 1, those whose order is another here.
MODELS = (
    *(("VAE", 8), ("Affine-TVAE", 8), ("TPS-TVAE", 8), ("Affine-DTVAE", 8)),
    *(("VAE", 20), ("TPS-TVAE", 20)),
)
STARTS = 3  # trainings from each start of the pose
RAW, BASE = "codes as they are", "as in table 1"
# What is changed, and the numbers that change it.
CHANGES: dict[str, dict[str, Any]] = {
    BASE: {},
    RAW: {},
    "zeros beyond the border": {"border": "zeros"},
    "the pose starts collapsed": {"start": "collapsed"},
    "Adadelta, 50 epochs": {
        "optimizer": "adadelta",
        "learning_rate": 1.0,
        "schedule": "halve",
        "epochs": 50,
    },
}


@experiment("vive-table1-ablation", BUDGETS)
def ablation(context: Context) -> Result:
    """Test accuracies of table 1 with one change at a time: codes, border, start, optimiser."""
    jobs = [job for change in CHANGES for job in _jobs(context, change)]
    found = iter(context.apply(_accuracies, jobs))
    columns = [f"{kind} ({size})" for kind, size in MODELS]
    thesis = {(kind, size): test for kind, size, _, _, test in TABLE1}
    rows: list[list[Any]] = []
    if context.data in (None, "mnist"):
        rows.append(["thesis", *(thesis[model] for model in MODELS), None])
    base: list[float] = []
    for change in CHANGES:
        if change == RAW:
            continue
        taken = [next(found) if _applies(kind, change) else None for kind, _ in MODELS]
        rows.append([change, *(each and each[0] for each in taken), None])
        if change == BASE:
            base = [each[0] for each in taken if each]
            rows.append([RAW, *(each and each[1] for each in taken), None])
    for row in rows:
        pairs = [(a, b) for a, b in zip(row[1:-1], base, strict=True) if a is not None]
        row[-1] = fmean(a - b for a, b in pairs)
    return Result(
        title="Test accuracy (%) of linear SVMs on codes, one change at a time",
        columns=["change", *columns, "mean change"],
        rows=rows,
        settings=settings_of(context),
        notes=[
            "Codes are standardised but in the row that says so, which is of the models of the "
            "first. A VAE has no pose, and so neither border nor start. Collapsed, a pose begins "
            "where all pixels read near the middle of the image. One training each."
        ],
    )


@experiment("vive-figure12", BUDGETS)
def figure12(context: Context) -> Result:
    """Outputs of the decoder before the warp, by where the pose starts (figure 12)."""
    starts: list[dict[str, str]] = [{}, {"start": "collapsed"}]
    jobs = [
        job_of(replace(context, seed=context.seed + trial), "Affine-TVAE", 14, **start)
        for start in starts
        for trial in range(STARTS)
    ]
    found, spread = [], IMAGE_STATISTICS["spread"]
    for job, parts in zip(jobs, context.train(jobs), strict=True):
        test = parts.splits.test.take(slice(GRID * GRID))
        with torch.no_grad():
            images = decoded(parts, codes(unrefined(parts.guide), test.x))
        error = -terms_of_test(context, parts)["reconstruction"]
        name = f"{'collapsed' if 'start' in job.numbers else 'identity'}, seed {job.seed}"
        found.append((error, name, images, (spread(images).mean() / spread(test.x).mean()).item()))
    found.sort(key=lambda each: each[0])
    panels = [(f"{name}: {error:.1f} nats", gridded(x)) for error, name, x, _ in found]
    return Result(
        title="Local minima: reconstruction error (nats), and the width of digits before the warp",
        columns=["start of the pose", "reconstruction error", "width over that of the digits"],
        rows=[[name, error, width] for error, name, _, width in found],
        settings=settings_of(context),
        figures=[context.save(panelled(panels, STARTS), "vive-figure12")],
        notes=["The best first. Widths are standard deviations of the ink, of test images."],
    )


def _applies(kind: str, change: str) -> bool:
    """Whether a model can be changed so: a VAE has no pose."""
    return kind != "VAE" or not {"border", "start"} & set(CHANGES[change])


def _jobs(context: Context, change: str) -> list[Job]:
    """The trainings of a change, none where it is of the machine alone."""
    if change == RAW:
        return []
    numbers = CHANGES[change]
    return [job_of(context, *model, **numbers) for model in MODELS if _applies(model[0], change)]


def _accuracies(job: Job) -> tuple[float, float]:
    """Train a model; the accuracies of its codes standardised, and as they are."""
    parts = job.train().parts
    train, test = parts.splits.train, parts.splits.test
    x, x_test = (codes(unrefined(parts.guide), part.x) for part in (train, test))
    scores = [
        svm_scores(x, labels(train), x_test, labels(test), folds=0, standardise=standardise)
        for standardise in (True, False)
    ]
    return scores[0].test, scores[1].test
