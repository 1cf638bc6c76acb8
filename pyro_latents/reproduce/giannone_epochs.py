"""How the transfer of table 1 of Giannone et al. (2019) grows with the length of a training."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import BUDGETS, TAKES
from pyro_latents.reproduce.giannone_floors import reads
from pyro_latents.reproduce.giannone_transfer import Probe, chosen_job, chosen_settings, probed

# Each is a training of its own, whose rate falls to zero at its end.
EPOCHS = (1, 2, 4, 8, 16)
KINDS = ("TVAE", "VAE+, views without KL")


@experiment("giannone-epochs", BUDGETS, takes=TAKES, reads=reads)
def by_epochs(context: Context) -> Result:
    """Transfer by the epochs of a training, for two models of table 1, on validation data."""
    data = context.data or "fashion-mnist"
    keys = [(kind, count) for kind in KINDS for count in EPOCHS]
    jobs = [
        replace(chosen_job(context, kind, data, 100, context.seed, epochs=count), cost=count)
        for kind, count in keys
    ]
    found = context.apply(_tested, jobs)
    rows: list[list[Any]] = [
        [*key, *probe, round(seconds)] for key, (probe, seconds) in zip(keys, found, strict=True)
    ]
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axis = figure.subplots()
    for kind in KINDS:
        for column, (name, style) in enumerate((("plain", "-"), ("whitened", "--")), start=2):
            accuracy = [row[column] for row in rows if row[0] == kind]
            axis.plot(EPOCHS, accuracy, style, marker=".", label=f"{kind}: {name}")
    axis.set(xscale="log", xticks=EPOCHS, xticklabels=EPOCHS)
    axis.set(xlabel="epochs of the training", ylabel="accuracy on transfer data (%)")
    axis.minorticks_off()
    axis.legend(frameon=False)
    return Result(
        title=f"Accuracy (%) by the epochs of a training on {data}; all on validation data",
        columns=["model", "epochs", "plain", "whitened", "own", "own whitened", "seconds"],
        rows=rows,
        settings={**chosen_settings(context, data, 100), "epochs": list(EPOCHS)},
        figures=[context.save(figure, "giannone-epochs")],
        notes=["A training for each row, with rates that fall to zero at its end."],
    )


def _tested(job: Job) -> tuple[Probe, float]:
    """Train, and probe on validation data; with the seconds of both."""
    began = time.perf_counter()
    probe = probed(job, job.train().parts, validation=True)
    return probe, time.perf_counter() - began
