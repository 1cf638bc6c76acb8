"""The outlook of Giannone et al. (2019): matrices, and several views without inverses."""

from __future__ import annotations

from typing import Any

from pyro_latents.data.batches import Plain
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import BUDGETS, TAKES, job_of, settings_of, triplets_of
from pyro_latents.reproduce.giannone_coherence import QUICK
from pyro_latents.reproduce.giannone_floors import reads
from pyro_latents.reproduce.giannone_transfer import (
    CHOSEN,
    FRAME,
    Probe,
    frame_numbers,
    frame_of,
    probed,
)
from pyro_latents.reproduce.giannone_turns import Turns, turns

WEAK, STRONG = {"coherence_weight": 5.0}, {"coherence_weight": 200.0}
# They are of whole images, and go with the frame of the middle.
PIXELATIONS: dict[str, Any] = {"views": "pixelations", "shrink": 1.0}
# What a row is called, which model, and its numbers.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "additive": ("TVAE", WEAK),
    "matrix": ("TVAE, matrix", WEAK),
    "additive, weight 200": ("TVAE", STRONG),
    "matrix, weight 200": ("TVAE, matrix", STRONG),
    "two pixelations": ("TVAE", {**WEAK, **PIXELATIONS}),
    "three pixelations": ("TVAE", {**WEAK, **PIXELATIONS, "num_views": 3}),
    "views without KL, no T": ("VAE+, views without KL", {}),
}


@experiment("giannone-outlook", (QUICK, *BUDGETS[1:]), takes=TAKES, reads=reads)
def outlook(context: Context) -> Result:
    """The matrix transformation, and several views without inverses: transfer, T and bound."""
    data = context.data or "fashion-mnist"
    jobs = [
        job_of(context, kind, data, 100, **{**frame_numbers(FRAME), **numbers})
        for kind, numbers in ROWS.values()
    ]
    rows = []
    for name, job, watched in zip(ROWS, jobs, context.apply(_watched, jobs), strict=True):
        probe, found, elbo = watched
        rows.append([frame_of(job), name, *probe, *(found or [None] * 4), elbo])
    return Result(
        title=f"The paper's outlook, trained on {data}; all on validation data",
        columns=[
            *("frame", "transformation", "transfer", "whitened", "own", "own whitened"),
            *("correlation, T", "correlation, 1/T", "slope, T", "slope, 1/T", "elbo"),
        ],
        rows=rows,
        settings=settings_of(context, data, 100, **CHOSEN),
        notes=[
            "Columns as in giannone-ablation; elbo is the bound of an image alone, in nats, which "
            "is higher for shrunken images. Pixelations are means over blocks of 2, 4 or 7 "
            "pixels: they have no T that turns. The last row has half the difference of the "
            "codes of its views in the place of T."
        ],
    )


def _watched(job: Job) -> tuple[Probe, Turns | None, float]:
    """Train, and measure transfer, turns and bound on validation data."""
    parts = job.train().parts
    found = None
    if job.numbers.get("views") != "pixelations":
        options = {"triplets": triplets_of(job.context), "seed": job.context.seed}
        found, _ = turns(parts, parts.splits.validation, **options)
    alone = Plain(parts.splits.validation.take(slice(job.context.budget.test_images)))
    elbo = bound_terms(*parts.story.alone(parts), alone, seed=job.context.seed)["elbo"]
    return probed(job, parts, validation=True), found, elbo
