"""What coherence costs and buys a triplet TVAE of Giannone et al. (2019), on validation data."""

from __future__ import annotations

import time
from typing import Any

from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import BUDGETS, TAKES, job_of, settings_of, triplets_of
from pyro_latents.reproduce.giannone_floors import reads
from pyro_latents.reproduce.giannone_transfer import CHOSEN, probed
from pyro_latents.reproduce.giannone_turns import turns

# What holds the views' codes to the transformed code, and how much.
COHERENCE: tuple[dict[str, Any], ...] = (
    {"coherence_weight": 0.0},
    *({"coherence_weight": weight} for weight in (20.0, 200.0, 1000.0)),
    {"coherence": "kl"},
    {"coherence": "marginal", "coherence_weight": 0.05},
    {"coherence": "marginal", "coherence_weight": 200.0},
    {"coherence": "joint", "coherence_weight": 200.0},
)


@experiment("giannone-ablation", BUDGETS, takes=TAKES, reads=reads)
def ablation(context: Context) -> Result:
    """What coherence costs and buys, on validation data: transfer, and the angle of T."""
    data = context.data or "fashion-mnist"
    jobs = [job_of(context, "TVAE", data, 100, **numbers) for numbers in COHERENCE]
    jobs.append(job_of(context, "VAE+", data, 100))
    found = context.apply(_watched, jobs)
    rows = []
    for job, cells in zip(jobs, found, strict=True):
        form = (
            "none (VAE+)" if job.label == "VAE+" else job.numbers.get("coherence", "conditional")
        )
        rows.append([form, job.numbers.get("coherence_weight"), *cells])
    return Result(
        title=f"Coherence against transfer and T, trained on {data}; all on validation data",
        columns=[
            *("coherence", "weight", "transfer", "whitened", "own", "own whitened"),
            *("correlation, T", "correlation, 1/T", "slope, T", "slope, 1/T", "seconds"),
        ],
        rows=rows,
        settings=settings_of(context, data, 100, **CHOSEN),
        notes=[
            "Transfer: accuracy (%) of nearest neighbours on affNIST made from validation digits. "
            "The angles are those of giannone-figure3, of validation images of the training data."
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
