"""What coherence costs and buys a triplet TVAE of Giannone et al. (2019), on validation data."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pyro_latents.data.batches import Plain
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import (
    BUDGETS,
    FAST,
    TAKES,
    job_of,
    settings_of,
    triplets_of,
)
from pyro_latents.reproduce.giannone_floors import on_frame, reads
from pyro_latents.reproduce.giannone_transfer import CHOSEN, frame_numbers, frame_of, probed
from pyro_latents.reproduce.giannone_turns import turns

# As many steps as the others' quick budget, with all images and the quicker optimiser.
QUICK = replace(BUDGETS[0], images=None, numbers=FAST)

HAVE_T = ("TVAE", "TVAE, matrix")
SHRUNKEN = frame_numbers("shrunken")
PIXELATIONS: dict[str, Any] = {"views": "pixelations", "coherence_weight": 5.0}
# Each model, with what holds its views' codes to the transformed code, how much, and its frame.
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("TVAE", {"coherence_weight": 0.0}),
    *(("TVAE", {"coherence_weight": weight}) for weight in (5.0, 20.0, 200.0)),
    *(("TVAE", {"coherence_weight": weight, **SHRUNKEN}) for weight in (5.0, 200.0)),
    ("TVAE", {"coherence": "kl"}),
    ("TVAE", {"coherence": "marginal", "coherence_weight": 0.05}),
    ("TVAE", {"coherence": "marginal", "coherence_weight": 200.0}),
    ("TVAE", {"coherence": "joint", "coherence_weight": 200.0}),
    # The outlook: a matrix in the place of addition, and several views without inverses.
    *(("TVAE, matrix", {"coherence_weight": weight, **SHRUNKEN}) for weight in (5.0, 200.0)),
    *(("TVAE", {**PIXELATIONS, "num_views": count}) for count in (2, 3)),
    # Without a T: their half difference is measured in its place.
    *((kind, frame) for kind in ("VAE+", "VAE+, views without KL") for frame in ({}, SHRUNKEN)),
)


@experiment("giannone-ablation", (QUICK, *BUDGETS[1:]), takes=TAKES, reads=reads)
def ablation(context: Context) -> Result:
    """What coherence costs and buys, on validation data: transfer, the angle of T, the bound."""
    data = context.data or "fashion-mnist"
    jobs = [job_of(context, kind, data, 100, **numbers) for kind, numbers in ROWS]
    found = context.apply(_watched, jobs)
    rows = []
    for job, cells in zip(jobs, found, strict=True):
        form = job.numbers.get("coherence", "conditional") if job.label in HAVE_T else None
        views = job.numbers.get("num_views", "inverse")
        weight = job.numbers.get("coherence_weight")
        rows.append([frame_of(job), job.label, form, weight, views, *cells])
    return Result(
        title=f"Coherence against transfer and T, trained on {data}; all on validation data",
        columns=[
            *("frame", "model", "coherence", "weight", "views"),
            *("transfer", "whitened", "own", "own whitened"),
            *("correlation, T", "correlation, 1/T", "slope, T", "slope, 1/T", "turned images"),
            *("elbo", "seconds"),
        ],
        rows=rows,
        settings=settings_of(context, data, 100, **CHOSEN),
        notes=[
            "Transfer: accuracy (%) of nearest neighbours on affNIST made from validation digits. "
            "The angles are those of giannone-figure3, of validation images of the training data; "
            "those of VAE+ are of half the difference of the codes of the views, and `turned "
            "images` is the slope of codes of images that were turned themselves. Numbers of "
            "views are of means over blocks of 2, 4 or 7 pixels, which have no inverse and no T "
            "that turns. elbo is the bound of an image alone in its frame, in nats: shrunken "
            "images have less ink."
        ],
    )


def _watched(job: Job) -> list[float | None]:
    """Train, and measure transfer, turns and bound on validation data."""
    began = time.perf_counter()
    parts = job.train().parts
    probe = probed(job, parts, validation=True)
    angles: list[float | None] = [None] * 5
    if job.numbers.get("views") != "pixelations":
        options = {"triplets": triplets_of(job.context), "seed": job.context.seed}
        found, ceiling = turns(parts, parts.splits.validation, **options)
        angles = [*found, ceiling.slope]
    alone = on_frame(parts.splits.validation, frame_of(job))
    elbo = bound_terms(*parts.story.alone(parts), Plain(alone), seed=job.context.seed)["elbo"]
    return [*probe, *angles, elbo, round(time.perf_counter() - began)]
