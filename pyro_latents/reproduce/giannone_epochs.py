"""How the transfer of table 1 of Giannone et al. (2019) grows with the length of a training."""

from __future__ import annotations

import time
from typing import Any

from matplotlib.figure import Figure

from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import BUDGETS, TAKES
from pyro_latents.reproduce.giannone_floors import reads
from pyro_latents.reproduce.giannone_transfer import Probe, chosen_job, chosen_settings, probed

EPOCHS = (1, 2, 4, 8, 16)  # each a training of its own, whose rate falls to zero at its end


@experiment("giannone-epochs", BUDGETS[1:2], takes=TAKES, reads=reads)
def by_epochs(context: Context) -> Result:
    """Transfer by the epochs of a training: the TVAE of table 1, trained for each anew."""
    data = context.data or "fashion-mnist"
    jobs = [chosen_job(context, "TVAE", data, 100, context.seed, epochs=count) for count in EPOCHS]
    found = context.apply(_tested, jobs)
    rows: list[list[Any]] = [
        [count, *probe, round(seconds)]
        for count, (probe, seconds) in zip(EPOCHS, found, strict=True)
    ]
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axis = figure.subplots()
    for column, name in enumerate(("plain", "whitened"), start=1):
        axis.plot(EPOCHS, [row[column] for row in rows], ".-", label=name)
    axis.set(xscale="log", xticks=EPOCHS, xticklabels=EPOCHS)
    axis.set(xlabel="epochs of the training", ylabel="transfer to affNIST (%)")
    axis.minorticks_off()
    axis.legend(frameon=False)
    return Result(
        title=f"Accuracy (%) of the TVAE by the epochs of its training, trained on {data}",
        columns=["epochs", "transfer", "whitened", "own", "own whitened", "seconds"],
        rows=rows,
        settings={**chosen_settings(context, data, 100), "epochs": list(EPOCHS)},
        figures=[context.save(figure, "giannone-epochs")],
        notes=["A training for each row, with rates that fall to zero at its end; test data."],
    )


def _tested(job: Job) -> tuple[Probe, float]:
    """Train, and probe on test data; with the seconds of both."""
    began = time.perf_counter()
    probe = probed(job, job.train().parts, validation=False)
    return probe, time.perf_counter() - began
