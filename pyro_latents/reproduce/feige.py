"""Tables 1 and 2 of Feige (2019)."""

from __future__ import annotations

import math

from pyro_latents.reproduce.experiment import Cell, Context, Result, experiment
from pyro_latents.reproduce.feige_models import Errors, Spec, measure_one, settings_of, sources
from pyro_latents.reproduce.parallel import in_processes

TRIALS = {"quick": 1, "hours": 1, "paper": 5}
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
FEW_LABELS = (100, 1000)  # of the budgets other than the paper's
NO_FIGURE = (None, None)


@experiment("feige-table1")
def table1(context: Context) -> Result:
    """Supervised test errors of three classifiers (table 1)."""
    data = sources(context)
    specs = [Spec(name, context.seed + trial) for name in data for trial in _trials(context)]
    found = _measured(context, specs)
    rows: list[list[Cell]] = []
    for name in data:
        for technique, key, paper in TABLE1:
            errors = [found[i][key] for i, spec in enumerate(specs) if spec.data == name]
            rows.append([name, technique, *paper.get(name, NO_FIGURE), *_mean(errors)])
    return Result(
        title="Supervised error rates on test data (%), with standard errors",
        columns=["data", "technique", "paper", "+-", "ours", "+-", "trials"],
        rows=rows,
        settings={
            **settings_of(context, specs[0]),
            "seconds_of_equivae": [round(errors["seconds"]) for errors in found],
        },
        notes=[
            "Standard errors are the standard deviation over the root of the trials less one, as "
            "in the paper. The distance rule has no parameters; its class means are of all "
            "training points."
        ],
    )


@experiment("feige-table2")
def table2(context: Context) -> Result:
    """Test errors with few labels, beside the benchmark trained on the labels alone (table 2)."""
    specs = [
        Spec(name, context.seed + trial, labels)
        for name in sources(context)
        for labels in _labels(name, context)
        for trial in _trials(context)
    ]
    found = _measured(context, specs)
    rows: list[list[Cell]] = []
    for name, labels in dict.fromkeys((spec.data, spec.labels) for spec in specs):
        ours, theirs = TABLE2.get(name, {}).get(labels or 0, (NO_FIGURE, NO_FIGURE))
        trials = [
            errors
            for spec, errors in zip(specs, found, strict=True)
            if (spec.data, spec.labels) == (name, labels)
        ]
        columns = [
            _mean([errors[key] for errors in trials if key in errors])
            for key in ("error_rate", "distance_error", "benchmark")
        ]
        cells = [cell for mean, error, _ in columns for cell in (mean, error)]
        rows.append([name, labels, *ours, *theirs, *cells, len(trials)])
    return Result(
        title="Error rates on test data with few labels (%), with standard errors",
        columns=[
            "data",
            "labels",
            "paper: EquiVAE",
            "+-",
            "paper: benchmark",
            "+-",
            "q(y|x)",
            "+-",
            "distance",
            "+-",
            "benchmark",
            "+-",
            "trials",
        ],
        rows=rows,
        settings={
            **settings_of(context, specs[0]),
            "seconds_of_equivae": [round(errors["seconds"]) for errors in found],
        },
        notes=[
            "The benchmark is trained on the labelled points alone. Each trial has labelled "
            "points of its own. The paper does not say which of its classifiers is in its table."
        ],
    )


def _measured(context: Context, specs: list[Spec]) -> list[Errors]:
    """The errors of each model, with those of its benchmark; the long trainings come first."""
    jobs = [(context, spec, kind) for kind in ("equivae", "benchmark") for spec in specs]
    found = in_processes(measure_one, jobs, description="trainings")
    count = len(specs)
    return [
        {**own, "benchmark": other["benchmark"]}
        for own, other in zip(found[:count], found[count:], strict=True)
    ]


def _trials(context: Context) -> range:
    return range(TRIALS[context.budget])


def _labels(data: str, context: Context) -> tuple[int, ...]:
    known = tuple(TABLE2.get(data, {100: None}))
    if context.budget == "paper":
        return known
    return tuple(labels for labels in FEW_LABELS if labels in known) or known[:1]


def _mean(errors: list[float]) -> list[Cell]:
    """The mean, its standard error as the paper has it, and the number of trials."""
    if not errors:
        return [None, None, 0]
    mean = sum(errors) / len(errors)
    if len(errors) < 2:
        return [mean, None, 1]
    variance = sum((error - mean) ** 2 for error in errors) / len(errors)
    return [mean, math.sqrt(variance / (len(errors) - 1)), len(errors)]
