"""The predictive checks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from pyro_latents.checks.arviz_io import save_netcdf, to_arviz
from pyro_latents.checks.classifier import Classifier, features_and_classes, train_classifier
from pyro_latents.checks.equivariance import equivariance_residual
from pyro_latents.checks.figures import populations, reliability_curve, u_values
from pyro_latents.checks.pixels import reliability
from pyro_latents.checks.population import Population, counts, frechet_distance
from pyro_latents.checks.predictive import (
    Replicates,
    binarised_like,
    prior_statistics,
    replicates,
)
from pyro_latents.checks.splits import HonestSplit
from pyro_latents.checks.statistics import Statistic, distance_to, statistics_for
from pyro_latents.data.examples import Examples
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.errors import UserError
from pyro_latents.files import write_json, write_text
from pyro_latents.plots import image_rows, save
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.runs.recipe import Run, check_seed
from pyro_latents.stories.story import Parts
from pyro_latents.text import aligned

# Test points of which a part is hidden, at most: each may be inferred by gradient steps.
SPLIT_POINTS = 100


@dataclass(frozen=True)
class Row:
    """What a check says of one statistic.

    Args:
        check: ``per image``, ``population``, or what is checked given what.
        statistic: Its name.
        p_value: Of the mean over images, or of one distribution for data and draws.
        outside: The share of data points outside the central 95 % of their replicates, or None.
        meaning: The statistic in words.
    """

    check: str
    statistic: str
    p_value: float
    outside: float | None
    meaning: str


def check(
    run: Run,
    *,
    images: int = 1000,
    draws: int = 200,
    seed: int = 0,
    statistics: Mapping[str, Statistic] | None = None,
) -> list[Path]:
    """Check a run's model and guide by predictive draws on its test data.

    Written into the run's folder ``checks`` are ``check.nc`` (ArviZ), ``p_values.txt`` and
    ``p_values.json``, and the figures. Replicates given an image are optimistic, since its code
    was inferred from the same image; the population and the story's ``honest_split``, whose
    draws are in ``hidden.nc``, are not. A part is hidden of the first 100 points at most.

    Args:
        run: The run.
        images: Test points, the first ones.
        draws: Replicates of each.
        seed: Of the draws.
        statistics: Of your own, beside the usual ones.

    Returns:
        The paths of what was written.

    Raises:
        UserError: if a number is not positive.
    """
    # A population of one has no spread to compare.
    for option, value, least in (("images", images, 2), ("draws", draws, 1)):
        if value < least:
            raise UserError(f"--{option} must be at least {least}; got {value}.")
    check_seed(seed)
    parts = run.parts
    test = parts.splits.test.take(slice(images))
    batches = parts.batches("test", limit=images)
    statistics = {**statistics_for(test.shape), **(statistics or {})}
    if len(test.shape) == 1:
        statistics["nearest"] = distance_to(parts.splits.train.x)
    classifier = _classifier(parts, seed)
    if classifier is not None:
        statistics["confidence"] = Statistic(
            classifier.confidence, "confidence of a classifier trained on the data", whole=True
        )
    found = replicates(
        parts.model, parts.guide, batches, statistics, draws=draws, seed=seed, points=len(test)
    )
    rows = _rows("per image", found, statistics)
    of_all = statistics | _turned(parts)
    population = _population(parts, test, of_all, classifier, seed)
    rows += [
        Row("population", name, value, None, _meaning(of_all, name))
        for name, value in population.p_values().items()
    ]
    folder = run.path / "checks"
    data = to_arviz(found, population.drawn)
    paths = [save_netcdf(data, folder / "check.nc")]
    figures = {"population": populations(population), **_figures(found, data)}
    split = parts.story.honest_split(parts, points=min(images, SPLIT_POINTS), seed=seed)
    if split is not None:
        hidden = _hidden(parts, split, statistics, draws, seed)
        rows += _rows(split.check, hidden, statistics)
        data = to_arviz(hidden)
        paths.append(save_netcdf(data, folder / "hidden.nc"))
        figures |= {f"hidden_{name}": figure for name, figure in _figures(hidden, data).items()}
    extra: dict[str, float] = {
        name: population.observed[name].mean().item() for name in of_all.keys() - statistics.keys()
    }
    if isinstance(getattr(parts.model, "likelihood", None), Bernoulli):
        curve = reliability(parts.model, parts.guide, batches, points=len(test), seed=seed)
        figures["pixels"] = reliability_curve(curve)
        extra["expected_calibration_error"] = curve.expected_calibration_error
    if population.frechet_distance is not None:
        extra["frechet_distance"] = population.frechet_distance
    paths += [save(figure, folder / f"{name}.png") for name, figure in figures.items()]
    write_json(
        folder / "p_values.json",
        {"images": len(test), "draws": draws, "seed": seed, **extra}
        | {"rows": [row.__dict__ for row in rows]},
    )
    text = as_text(rows, extra)
    write_text(folder / "p_values.txt", text)
    return [*paths, folder / "p_values.json", folder / "p_values.txt"]


def as_text(rows: list[Row], extra: dict[str, float]) -> str:
    """Return the table of p-values, with each statistic in words."""
    cells = [("check", "statistic", "p", "outside 95 %", "meaning")]
    for row in rows:
        outside = "" if row.outside is None else f"{100 * row.outside:.1f} %"
        cells.append((row.check, row.statistic, f"{row.p_value:.4f}", outside, row.meaning))
    lines = [aligned(cells)]
    lines += [f"{name}  {value:.4f}" for name, value in extra.items()]
    return "\n".join([*lines, ""])


def _rows(kind: str, found: Replicates, statistics: dict[str, Statistic]) -> list[Row]:
    p_values, outside = found.p_values(), found.outside()
    return [
        Row(kind, name, p_values[name], outside[name], _meaning(statistics, name))
        for name in p_values
    ]


def _meaning(statistics: dict[str, Statistic], name: str) -> str:
    return statistics[name].meaning if name in statistics else "classes that a classifier sees"


def _classifier(parts: Parts, seed: int) -> Classifier | None:
    train = parts.splits.train
    if len(train.shape) != 3 or train.y is None or parts.splits.num_classes < 2:
        return None
    binary = isinstance(getattr(parts.model, "likelihood", None), Bernoulli)
    return train_classifier(train, parts.splits.num_classes, binary=binary, seed=seed)


def _population(
    parts: Parts,
    test: Examples,
    statistics: dict[str, Statistic],
    classifier: Classifier | None,
    seed: int,
) -> Population:
    likelihood = getattr(parts.model, "likelihood", None)
    torch.manual_seed(seed)
    observed = binarised_like(test.x, likelihood(test.x)) if likelihood else test.x
    drawn, first = prior_statistics(parts.model, statistics, draws=len(test), seed=seed + 1)
    found = Population(
        {name: statistic(observed).float() for name, statistic in statistics.items()}, drawn
    )
    if classifier is None:
        return found
    classes = parts.splits.num_classes
    data_features, data_classes = features_and_classes(classifier, observed)
    draw_features, draw_classes = features_and_classes(classifier, first)
    return replace(
        found,
        observed_classes=counts(data_classes, classes),
        drawn_classes=counts(draw_classes, classes),
        frechet_distance=frechet_distance(data_features, draw_features),
    )


def _turned(parts: Parts) -> dict[str, Statistic]:
    """The statistic of images that are turned, where the story takes images by themselves."""
    pair = parts.story.image_pair(parts)
    return {} if pair is None else {"equivariance_residual": equivariance_residual(*pair)}


def _hidden(
    parts: Parts, split: HonestSplit, statistics: dict[str, Statistic], draws: int, seed: int
) -> Replicates:
    # The programs of a split may be functions around these modules.
    modules = parts.model, parts.guide
    with local_parameters(*modules), evaluation_mode(*modules):
        return replicates(
            split.model,
            split.guide,
            split.batches,
            split.statistics(statistics),
            draws=draws,
            site=split.site,
            seed=seed,
        )


def _figures(found: Replicates, data: Any) -> dict[str, Figure]:
    """The u-values, and of images some data points above their replicates."""
    figures = {"u_values": u_values(data)}
    assert found.examples is not None
    observed, reps = found.examples
    if observed[0].dim() == 3:
        named = {"observed": observed}
        named |= {f"replicate {i + 1}": images for i, images in enumerate(reps)}
        figures["replicates"] = image_rows(named)
    return figures
