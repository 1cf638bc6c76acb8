"""Tables 1 and 2 of Feige (2019), and the classifiers of section 3.1."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from pyro_latents.data.examples import Examples
from pyro_latents.data.folders import data_folder
from pyro_latents.reproduce.experiment import (
    Budget,
    Context,
    Job,
    Result,
    experiment,
    labels,
    mean_and_error,
)
from pyro_latents.stories.equivae.metrics import (
    classification_errors,
    fit_classifier,
    network_error,
)
from pyro_latents.stories.equivae.networks import CodeClassifier, LabelClassifier
from pyro_latents.stories.equivae.recipes import EquiVAEStory
from pyro_latents.stories.equivae.semi_supervised import SemiSupervisedStory
from pyro_latents.stories.story import Parts

TAKES = ("mnist", "svhn", "street-mnist", "digits")
STAND_IN = {"street-mnist": "svhn"}  # trained and labelled as the other, in tables of their own
# With all labels, with few, and of every class where it is decoded; the embedded digits are small
# whatever the budget. About 18 minutes on one core for MNIST: all images, a shorter schedule.
_QUICK = {
    "supervised": dict.fromkeys(TAKES[:3], {"epochs": 16, "halve_every": 4}),
    "few": dict.fromkeys(TAKES[:3], {"epochs": 20}),
    "few_images": 20_000,
}
BUDGETS = (
    Budget(name="quick", own=_QUICK),
    Budget(name="hours"),
    Budget(name="paper", own={"trials": 5, "few_labels": (100, 600, 1000, 3000)}),
)
# Epochs with few labels, by data and labels (section 3.2).
FEW_EPOCHS = {"mnist": {100: 20, 600: 25, 1000: 30, 3000: 35}, "svhn": {1000: 20, 3000: 30}}
SETTINGS = (
    *("data", "epochs", "batch_size", "learning_rate", "halve_every"),
    *("r_dim", "v_dim", "m_max", "pool", "width", "decoder", "dropout", "deform"),
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
    "svhn": {1000: ((37.95, 0.66), (39.64, 1.47)), 3000: ((24.95, 0.57), (25.50, 0.91))},
}
NO_FIGURE = (None, None)
CLASSIFIER_STEPS = 3_000
DROPOUT, CODE_DROPOUT = 0.5, 0.2
BENCHMARK = "benchmark"  # the label of a job that trains the classifier in the model's place

# Before the name of an error: the same of the validation images.
VALIDATION = "validation: "
KEYS = ("error_rate", "distance_error", "benchmark")

Errors = dict[str, float]


def job_of(
    context: Context, data: str, trial: int = 0, labels: int | None = None, **numbers: Any
) -> Job:
    """Return the training of an EquiVAE, with all labels if there is no number of them."""
    own, seed = context.budget.own, context.seed + trial
    words = ["equivae", data, *(f"{name}{value}" for name, value in sorted(numbers.items()))]
    if labels is None:
        recipe, images = f"equivae-{data}", context.budget.images
        given = own.get("supervised", {}).get(data, {})
    else:
        recipe, images = f"equivae-semi-{data}", own.get("few_images")
        words.append(f"{labels} labels")
        epochs = FEW_EPOCHS.get(STAND_IN.get(data, data), {}).get(labels)
        given = {"labels": labels, "label_seed": seed, **({"epochs": epochs} if epochs else {})}
        given |= own.get("few", {}).get(data, {})
    folder = " ".join([*words, f"seed{seed}"])
    return context.job(recipe, folder, numbers={**given, **numbers}, seed=seed, images=images)


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
    found, settings = _measured(context, [(data, None) for data in sources(context)])
    rows = []
    for (data, _), trials in found.items():
        for technique, key, paper in TABLE1:
            validation = fmean(each[VALIDATION + key] for each in trials)
            ours = mean_and_error([each[key] for each in trials])
            rows.append([data, technique, *paper.get(data, NO_FIGURE), validation, *ours])
    return Result(
        title="Supervised error rates on test data (%), with standard errors",
        columns=["data", "technique", "paper", "+-", "validation", "ours", "+-", "trials"],
        rows=rows,
        settings=settings,
        notes=[
            "Standard errors are the paper's: the standard deviation over the root of the trials "
            "less one. The distance rule has no parameters; its class means are of all training "
            "points. The benchmark has the body, the deformations and as many points to see.",
        ],
    )


@experiment("feige-table2", BUDGETS, takes=TAKES, reads=sources)
def table2(context: Context) -> Result:
    """Test errors with few labels, beside the benchmark trained on the labels alone (table 2)."""
    pairs = [(data, count) for data in sources(context) for count in counts(context, data)]
    found, settings = _measured(context, pairs)
    rows = []
    for (data, count), trials in found.items():
        ours, theirs = TABLE2.get(data, {}).get(count, (NO_FIGURE, NO_FIGURE))
        cells: list[Any] = []
        validation = mean_and_error([each[VALIDATION + KEYS[0]] for each in trials])[0]
        for key in KEYS:
            cells += mean_and_error([each[key] for each in trials])[:2]
        weight = fmean(each["counts"] for each in trials)
        row = [data, count, round(weight), *ours, *theirs, validation, *cells, len(trials)]
        rows.append(row)
    columns = ["data", "labels", "weight of a label"]
    columns += ["paper: EquiVAE", "+-", "paper: benchmark", "+-", "validation"]
    for name in ("q(y|x)", "distance", "benchmark"):
        columns += [name, "+-"]
    return Result(
        title="Error rates on test data with few labels (%), with standard errors",
        columns=[*columns, "trials"],
        rows=rows,
        settings=settings,
        notes=[
            "The benchmark is trained on the labelled points alone, with the deformations of the "
            "EquiVAE. Each trial has labelled points of its own. The paper does not say which of "
            "its classifiers is in its table; the validation error is that of q(y|x).",
            "A label weighs what its point counts in an epoch beside an unlabelled one. In the "
            "paper it weighs one.",
        ],
    )


def counts(context: Context, data: str) -> tuple[int, ...]:
    """Return the numbers of labels that data are tried with."""
    known = tuple(TABLE2.get(STAND_IN.get(data, data), {100: None}))
    wanted = context.budget.own.get("few_labels", (100, 1000))
    return tuple(count for count in wanted if count in known) or known[:1]


def _measured(
    context: Context, pairs: list[tuple[str, Any]]
) -> tuple[dict[tuple[str, Any], list[Errors]], dict[str, Any]]:
    """The errors of each trial of data and labels, its benchmark's too, and the settings of all.

    The long trainings come first.
    """
    trials = range(context.budget.own.get("trials", 1))
    keys = [(pair, trial) for pair in pairs for trial in trials]
    jobs = [job_of(context, data, trial, known) for (data, known), trial in keys]
    benchmarks = [replace(job, label=BENCHMARK) for job in jobs]
    found = context.apply(errors, [*(replace(job, cost=1) for job in jobs), *benchmarks])
    own, theirs = found[: len(jobs)], found[len(jobs) :]
    by_pair: dict[tuple[str, Any], list[Errors]] = {pair: [] for pair in pairs}
    for (pair, _), ours, their in zip(keys, own, theirs, strict=True):
        by_pair[pair].append({**their, **ours})
    seconds = [round(each["seconds"]) for each in own]
    return by_pair, {**settings_of(jobs[0]), "seconds_of_equivae": seconds}


def errors(job: Job) -> Errors:
    """Train a model or the `BENCHMARK`, and return its errors in per cent.

    They are those of test data, and of the validation images; those of a model are of the distance
    rule, of `q(y | x)`, and of a network on `f_inv(x)`.
    """
    began = time.perf_counter()
    trained = job.label != BENCHMARK
    parts = job.train().parts if trained else untrained(job)
    # Where there are no validation images, the test data stand for them.
    validation = parts.splits.validation if len(parts.splits.validation) else parts.splits.test
    measured = {"": parts.splits.test, VALIDATION: validation}
    if trained:
        points = [_story(parts).labelled(parts.splits), *measured.values()]
        by_network = code_errors(job, [parts.model.embed(part.x) for part in points], points)
        found = [
            {**classification_errors(parts, part), "network": error}
            for part, error in zip(measured.values(), by_network, strict=True)
        ]
    else:
        network = benchmark_of(job, parts)
        found = [{BENCHMARK: network_error(network, p.x, labels(p))} for p in measured.values()]
    by_name = {
        prefix + name: error
        for prefix, own in zip(measured, found, strict=True)
        for name, error in own.items()
    }
    return {**by_name, "counts": _counts(parts), "seconds": time.perf_counter() - began}


def _counts(parts: Parts) -> float:
    """What a labelled point counts in an epoch beside an unlabelled one."""
    story, count = _story(parts), len(parts.splits.train)
    if not isinstance(story, SemiSupervisedStory):
        return 1.0
    return story.labelled_weight * (count - story.labels) / story.labels


def code_errors(job: Job, codes: list[Tensor], parts: list[Examples]) -> list[float]:
    """Return the errors of the dropout network on codes, standardised by the labelled ones.

    Args:
        job: The training of the model.
        codes: Those of the labelled points, and of each set of points to classify.
        parts: The same points, for their classes.
    """
    y = labels(parts[0])
    centre, spread = codes[0].mean(0), codes[0].std(0).clamp_min(1e-6)
    known, *tested = ((part - centre) / spread for part in codes)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        network = CodeClassifier(codes[0].shape[1], int(y.max()) + 1, CODE_DROPOUT)
    fit_classifier(network.to(known.device), known, y, steps=_steps(job), seed=job.seed)
    pairs = zip(tested, parts[1:], strict=True)
    return [network_error(network, given, labels(part)) for given, part in pairs]


def benchmark_of(job: Job, parts: Parts) -> nn.Module:
    """The benchmark classifier, trained on the labelled points.

    It has the body of `f_inv` and two dropout layers, its images are deformed as those of `f_inv`
    are, and it sees as many points as the EquiVAE; with few labels, `CLASSIFIER_STEPS` batches.
    """
    story, steps = _story(parts), _steps(job)
    labelled = story.labelled(parts.splits)
    with torch.random.fork_rng():
        torch.manual_seed(parts.seed)
        network = network_of(parts).to(labelled.device)
    if story.name == EquiVAEStory.name:
        steps = story.epochs * max(1, len(labelled) // story.batch_size)
    return fit_classifier(network, labelled.x, labels(labelled), steps=steps, seed=parts.seed)


def _steps(job: Job) -> int:
    return job.context.budget.own.get("classifier_steps", CLASSIFIER_STEPS)


def untrained(job: Job) -> Parts:
    """The parts of a job, where there is most to compute with."""
    return job.build().to("cuda" if torch.cuda.is_available() else "cpu")


def network_of(parts: Parts) -> LabelClassifier:
    """Return the benchmark classifier, untrained."""
    story = _story(parts)
    classes = parts.splits.num_classes
    return LabelClassifier(story.x_shape, classes, story.width, DROPOUT, story.deform)


def _story(parts: Parts) -> EquiVAEStory:
    assert isinstance(parts.story, EquiVAEStory)
    return parts.story
