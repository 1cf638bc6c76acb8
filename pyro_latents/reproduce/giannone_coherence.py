"""What coherence costs and buys a triplet TVAE of Giannone et al. (2019), on validation data."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import (
    BUDGETS,
    FAST,
    TAKES,
    job_of,
    settings_of,
    triplets_of,
)
from pyro_latents.reproduce.giannone_floors import reads
from pyro_latents.reproduce.giannone_transfer import CHOSEN, frame_numbers, frame_of, probed
from pyro_latents.reproduce.giannone_turns import turns

# As many steps as the others' quick budget, with all images and the quicker optimiser.
QUICK = replace(BUDGETS[0], images=None, numbers=FAST)

# What holds the views' codes to the transformed code, how much, and in which frame.
COHERENCE: tuple[dict[str, Any], ...] = (
    {"coherence_weight": 0.0},
    *({"coherence_weight": weight} for weight in (5.0, 20.0, 200.0)),
    *({"coherence_weight": weight, **frame_numbers("shrunken")} for weight in (5.0, 200.0)),
    {"coherence": "kl"},
    {"coherence": "marginal", "coherence_weight": 0.05},
    {"coherence": "marginal", "coherence_weight": 200.0},
    {"coherence": "joint", "coherence_weight": 200.0},
)
# Without a T: their half difference is measured in its place.
BASELINES = ("VAE+", "VAE+, views without KL")


@experiment("giannone-ablation", (QUICK, *BUDGETS[1:]), takes=TAKES, reads=reads)
def ablation(context: Context) -> Result:
    """What coherence costs and buys, on validation data: transfer, and the angle of T."""
    data = context.data or "fashion-mnist"
    jobs = [job_of(context, "TVAE", data, 100, **numbers) for numbers in COHERENCE]
    jobs += [job_of(context, kind, data, 100) for kind in BASELINES]
    found = context.apply(_watched, jobs)
    rows = []
    for job, cells in zip(jobs, found, strict=True):
        form = job.label if job.label in BASELINES else job.numbers.get("coherence", "conditional")
        rows.append([frame_of(job), form, job.numbers.get("coherence_weight"), *cells])
    return Result(
        title=f"Coherence against transfer and T, trained on {data}; all on validation data",
        columns=[
            *("frame", "coherence", "weight", "transfer", "whitened", "own", "own whitened"),
            *("correlation, T", "correlation, 1/T", "slope, T", "slope, 1/T", "seconds"),
        ],
        rows=rows,
        settings=settings_of(context, data, 100, **CHOSEN),
        notes=[
            "Transfer: accuracy (%) of nearest neighbours on affNIST made from validation digits. "
            "The angles are those of giannone-figure3, of validation images of the training data; "
            "those of VAE+ are of half the difference of the codes of the views."
        ],
    )


def _watched(job: Job) -> list[float | None]:
    """Train, and measure transfer and turns on validation data."""
    began = time.perf_counter()
    parts = job.train().parts
    probe = probed(job, parts, validation=True)
    options = {"triplets": triplets_of(job.context), "seed": job.context.seed}
    found, _ = turns(parts, parts.splits.validation, **options)
    return [*probe, *found, round(time.perf_counter() - began)]
