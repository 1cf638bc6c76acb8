"""Tables 1 and 2 of Feige (2019)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pyro_latents.data.folders import data_folder
from pyro_latents.reproduce.experiment import Budget, Cell, Context, Job, Result, experiment
from pyro_latents.reproduce.feige_classifiers import BENCHMARK, Errors, errors

TAKES = ("mnist", "svhn", "digits")
# With all labels, with few, and of every class where it is decoded; the embedded digits are small
# whatever the budget. About 18 minutes on one core for MNIST: all images, a shorter schedule.
_QUICK = {
    "supervised": dict.fromkeys(("mnist", "svhn"), {"epochs": 16, "halve_every": 4}),
    "few": dict.fromkeys(("mnist", "svhn"), {"epochs": 20}),
    "few_images": 20_000,
}
BUDGETS = (
    Budget(name="quick", own=_QUICK),
    Budget(name="hours"),
    Budget(name="paper", own={"trials": 5, "few_labels": (100, 600, 1000, 3000)}),
)
# Epochs with few labels, by data and labels (section 3.2).
FEW_EPOCHS = {
    "mnist": {100: 20, 600: 25, 1000: 30, 3000: 35},
    "svhn": {1000: 20, 3000: 30},
}
SETTINGS = (
    *("data", "epochs", "batch_size", "learning_rate", "halve_every"),
    *("r_dim", "v_dim", "m_max", "width", "decoder", "dropout"),
)
FEW_SETTINGS = (
    *("labelled_weight", "label_weight", "label_posterior", "label_dropout"),
    *("warm_up", "ramp", "label_delay", "label_ramp"),
)
# Table 1: technique, what measures it here, then error and standard error by data.
TABLE1 = [
    ("benchmark classifier", "benchmark", {"mnist": (0.84, 0.03), "svhn": (10.04, 0.14)}),
    ("neural classifier on f_inv(x)", "network", {"mnist": (0.82, 0.03), "svhn": (11.97, 0.34)}),
    ("distance on f_inv(x)", "distance_error", {"mnist": (0.82, 0.05), "svhn": (12.30, 0.28)}),
]
# Table 2: labels -> error and standard error of the EquiVAE and of the benchmark.
TABLE2 = {
    "mnist": {
        100: ((8.90, 0.70), (21.91, 0.66)),
        600: ((3.99, 0.17), (6.64, 0.35)),
        1000: ((3.34, 0.17), (5.43, 0.31)),
        3000: ((2.23, 0.14), (2.96, 0.11)),
    },
    "svhn": {
        1000: ((37.95, 0.66), (39.64, 1.47)),
        3000: ((24.95, 0.57), (25.50, 0.91)),
    },
}
NO_FIGURE = (None, None)


def job_of(
    context: Context, data: str, trial: int = 0, labels: int | None = None, **numbers: Any
) -> Job:
    """Return the training of an EquiVAE, with all labels if there is no number of them."""
    own, seed = context.budget.own, context.seed + trial
    words = ["equivae", data, *(f"{name}{value}" for name, value in sorted(numbers.items()))]
    if labels is None:
        recipe, images, known = f"equivae-{data}", context.budget.images, {}
        known = own.get("supervised", {}).get(data, {})
    else:
        recipe, images = f"equivae-semi-{data}", own.get("few_images")
        words.append(f"{labels} labels")
        epochs = FEW_EPOCHS.get(data, {}).get(labels)
        known = {"labels": labels, "label_seed": seed, **({"epochs": epochs} if epochs else {})}
        known |= own.get("few", {}).get(data, {})
    folder = " ".join([*words, f"seed{seed}"])
    return context.job(recipe, folder, numbers={**known, **numbers}, seed=seed, images=images)


def settings_of(job: Job) -> dict[str, Any]:
    """Return what a result says of the training of its models."""
    return job.settings(*SETTINGS, *(FEW_SETTINGS if "labels" in job.numbers else ()))


def sources(context: Context) -> list[str]:
    """Return the data of an experiment: MNIST, and on the paper's budget SVHN where it is."""
    if context.data is not None:
        return [context.data]
    folder = data_folder(context.data_dir)
    found = any((part / "train_32x32.mat").is_file() for part in (folder, folder / "SVHN"))
    return ["mnist", "svhn"] if found and context.budget.name == "paper" else ["mnist"]


@experiment("feige-table1", BUDGETS, takes=TAKES, reads=sources)
def table1(context: Context) -> Result:
    """Supervised test errors of three classifiers (table 1)."""
    keys = [(data, trial) for data in sources(context) for trial in _trials(context)]
    jobs = [job_of(context, data, trial) for data, trial in keys]
    found = _measured(context, jobs)
    rows: list[list[Cell]] = []
    for data in sources(context):
        trials = [each for key, each in zip(keys, found, strict=True) if key[0] == data]
        for technique, key, paper in TABLE1:
            ours = mean_and_error([each[key] for each in trials])
            rows.append([data, technique, *paper.get(data, NO_FIGURE), *ours])
    seconds = [round(each["seconds"]) for each in found]
    return Result(
        title="Supervised error rates on test data (%), with standard errors",
        columns=["data", "technique", "paper", "+-", "ours", "+-", "trials"],
        rows=rows,
        settings={**settings_of(jobs[0]), "seconds_of_equivae": seconds},
        notes=[
            "Standard errors are the standard deviation over the root of the trials less one, as "
            "in the paper. The distance rule has no parameters; its class means are of all "
            "training points."
        ],
    )


@experiment("feige-table2", BUDGETS, takes=TAKES, reads=sources)
def table2(context: Context) -> Result:
    """Test errors with few labels, beside the benchmark trained on the labels alone (table 2)."""
    pairs = [(data, count) for data in sources(context) for count in counts(context, data)]
    keys = [(pair, trial) for pair in pairs for trial in _trials(context)]
    jobs = [job_of(context, data, trial, labels) for (data, labels), trial in keys]
    found = _measured(context, jobs)
    rows: list[list[Cell]] = []
    for data, labels in pairs:
        ours, theirs = TABLE2.get(data, {}).get(labels, (NO_FIGURE, NO_FIGURE))
        trials = [e for (pair, _), e in zip(keys, found, strict=True) if pair == (data, labels)]
        cells: list[Cell] = []
        for key in ("error_rate", "distance_error", "benchmark"):
            cells += mean_and_error([each[key] for each in trials if key in each])[:2]
        rows.append([data, labels, *ours, *theirs, *cells, len(trials)])
    columns = ["data", "labels"]
    for name in ("paper: EquiVAE", "paper: benchmark", "q(y|x)", "distance", "benchmark"):
        columns += [name, "+-"]
    seconds = [round(each["seconds"]) for each in found]
    return Result(
        title="Error rates on test data with few labels (%), with standard errors",
        columns=[*columns, "trials"],
        rows=rows,
        settings={**settings_of(jobs[0]), "seconds_of_equivae": seconds},
        notes=[
            "The benchmark is trained on the labelled points alone. Each trial has labelled "
            "points of its own. The paper does not say which of its classifiers is in its table."
        ],
    )


def counts(context: Context, data: str) -> tuple[int, ...]:
    """Return the numbers of labels that data are tried with."""
    known = tuple(TABLE2.get(data, {100: None}))
    wanted = context.budget.own.get("few_labels", (100, 1000))
    return tuple(labels for labels in wanted if labels in known) or known[:1]


def mean_and_error(values: list[float]) -> list[Cell]:
    """Return the mean, its standard error as the paper has it, and the number of trials."""
    if not values:
        return [None, None, 0]
    mean = sum(values) / len(values)
    if len(values) < 2:
        return [mean, None, 1]
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [mean, math.sqrt(variance / (len(values) - 1)), len(values)]


def _trials(context: Context) -> range:
    return range(context.budget.own.get("trials", 1))


def _measured(context: Context, jobs: list[Job]) -> list[Errors]:
    """The errors of each model, with those of its benchmark; the long trainings come first."""
    benchmarks = [replace(job, label=BENCHMARK) for job in jobs]
    found = context.apply(errors, [*(replace(job, cost=1) for job in jobs), *benchmarks])
    pairs = zip(found[: len(jobs)], found[len(jobs) :], strict=True)
    return [{**theirs, **own} for own, theirs in pairs]
