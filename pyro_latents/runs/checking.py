"""The predictive checks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from pyro_latents.checks.arviz_io import save_netcdf, to_arviz
from pyro_latents.checks.classifier import Classifier, features_and_classes, train_classifier
from pyro_latents.checks.equivariance import equivariance_residual
from pyro_latents.checks.figures import populations, reliability_curve, u_values
from pyro_latents.checks.pixels import reliability
from pyro_latents.checks.population import Population, frechet_distance
from pyro_latents.checks.predictive import (
    Replicates,
    binarised_like,
    prior_statistics,
    replicates,
)
from pyro_latents.checks.splits import HonestSplit
from pyro_latents.checks.statistics import (
    IMAGE_STATISTICS,
    VECTOR_STATISTICS,
    Statistic,
    distance_to,
)
from pyro_latents.data.examples import Examples
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.errors import check_counts, check_seed
from pyro_latents.files import write_json, write_text
from pyro_latents.plots import half_rows, image_rows, save
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.runs.opened import Opened
from pyro_latents.runs.units import floor_in_words, p_value
from pyro_latents.stories.story import Parts
from pyro_latents.text import aligned

# Of the table.
HEADS = ("check", "statistic", "p-value", "outside 95 %", "meaning")
# Test points of which a part is hidden, at most: each may be inferred by gradient steps.
SPLIT_POINTS = 100

Statistics = dict[str, Statistic]


class Row(NamedTuple):
    """What is said of a statistic; ``outside`` is the share of points outside their replicates."""

    check: str
    statistic: str
    p_value: float
    outside: float | None
    meaning: str

    def as_text(self, draws: int) -> tuple[str, ...]:
        """Return the cells of a table: the share in per cent, and the p-value with its floor.

        The p-value of replicates goes no lower than so many draws can show; that of a population,
        of which no share is outside, does.
        """
        if self.outside is None:
            return self.check, self.statistic, p_value(self.p_value), "", self.meaning
        outside, p = f"{100 * self.outside:.1f} %", p_value(self.p_value, draws)
        return self.check, self.statistic, p, outside, self.meaning


def check(
    run: Opened,
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
    """
    # A population of one has no spread to compare.
    check_counts(2, images=images)
    check_counts(1, draws=draws)
    check_seed(seed)
    parts, folder = run.parts, run.path / "checks"
    test, batches = parts.splits.test.take(slice(images)), parts.batches("test", limit=images)
    classifier = _classifier(parts, seed)
    usual = _statistics(parts, statistics or {}, classifier)
    found = replicates(parts.model, parts.guide, batches, usual, draws=draws, seed=seed)
    pair = parts.story.image_pair(parts)
    turned = {} if pair is None else {"equivariance_residual": equivariance_residual(*pair)}
    population = _population(parts, test, usual | turned, classifier, seed)
    rows = _rows("per image", usual, found.p_values(), found.outside())
    rows += _rows("population", usual | turned, population.p_values())
    data = to_arviz(found, population.drawn)
    paths = [save_netcdf(data, folder / "check.nc")]
    figures = {"population": populations(population), **_figures(found, data)}
    split = parts.story.honest_split(parts, points=min(images, SPLIT_POINTS), seed=seed)
    if split is not None:
        hidden = _hidden(parts, split, usual, draws, seed)
        rows += _rows(split.check, usual, hidden.p_values(), hidden.outside())
        data = to_arviz(hidden)
        paths.append(save_netcdf(data, folder / "hidden.nc"))
        drawn = _figures(hidden, data, split)
        figures |= {f"hidden_{name}": figure for name, figure in drawn.items()}
    extra = {name: population.observed[name].mean().item() for name in turned}
    if _is_binary(parts):
        curve = reliability(parts.model, parts.guide, batches, seed=seed)
        figures["pixels"] = reliability_curve(curve)
        extra["expected_calibration_error"] = curve.expected_calibration_error
    if population.frechet_distance is not None:
        extra["frechet_distance"] = population.frechet_distance
    paths += [save(figure, folder / f"{name}.png") for name, figure in figures.items()]
    said = {"images": len(test), "draws": draws, "seed": seed, **extra}
    return [*paths, *_write(folder, rows, extra, said)]


def _statistics(
    parts: Parts, own: Mapping[str, Statistic], classifier: Classifier | None
) -> Statistics:
    is_image = len(parts.story.x_shape) == 3
    found = {**(IMAGE_STATISTICS if is_image else VECTOR_STATISTICS), **own}
    if not is_image:
        found["nearest"] = distance_to(parts.splits.train.x)
    if classifier is not None:
        found["confidence"] = Statistic(
            classifier.confidence, "confidence of a classifier trained on the data", whole=True
        )
    return found


def _rows(
    kind: str,
    statistics: Statistics,
    p_values: dict[str, float],
    outside: Mapping[str, float] | None = None,
) -> list[Row]:
    meanings = {name: statistic.meaning for name, statistic in statistics.items()}
    meanings.setdefault("classes", "classes that a classifier sees")
    return [
        Row(kind, name, value, outside[name] if outside else None, meanings[name])
        for name, value in p_values.items()
    ]


def _classifier(parts: Parts, seed: int) -> Classifier | None:
    train = parts.splits.train
    if len(train.shape) != 3 or train.y is None or parts.splits.num_classes < 2:
        return None
    classes, binary = parts.splits.num_classes, _is_binary(parts)
    return train_classifier(train, classes, binary=binary, seed=seed)


def _is_binary(parts: Parts) -> bool:
    return isinstance(getattr(parts.model, "likelihood", None), Bernoulli)


def _population(
    parts: Parts,
    test: Examples,
    statistics: Statistics,
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
    features, classes = zip(
        *(features_and_classes(classifier, x) for x in (observed, first)), strict=True
    )
    counts = [torch.bincount(y.cpu(), minlength=parts.splits.num_classes) for y in classes]
    return replace(
        found, classes=(counts[0], counts[1]), frechet_distance=frechet_distance(*features)
    )


def _hidden(
    parts: Parts, split: HonestSplit, statistics: Statistics, draws: int, seed: int
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


def _figures(found: Replicates, data: Any, split: HonestSplit | None = None) -> dict[str, Figure]:
    """The u-values, and of images some data points above their replicates.

    Where a part of each was hidden, the seam shows which.
    """
    figures = {"u_values": u_values(data)}
    assert found.examples is not None
    observed, reps = found.examples
    if observed[0].dim() == 3:
        named = {"observed": observed}
        named |= {f"replicate {i + 1}": images for i, images in enumerate(reps)}
        part = split.part if split is not None else None
        seam = 0 if part is None else observed.shape[-1] - part(observed).shape[-1]
        figures["replicates"] = half_rows(named, seam, "observed") if seam else image_rows(named)
    return figures


def _write(
    folder: Path, rows: list[Row], extra: dict[str, float], said: dict[str, Any]
) -> list[Path]:
    """Write the p-values, as a table with each statistic in words and for programs."""
    cells = [HEADS, *(row.as_text(said["draws"]) for row in rows)]
    lines = [aligned(cells), "", floor_in_words(said["draws"])]
    lines += [f"{name}  {value:.4f}" for name, value in extra.items()]
    paths = [folder / "p_values.json", folder / "p_values.txt"]
    write_json(paths[0], {**said, "rows": [row._asdict() for row in rows]})
    write_text(paths[1], "\n".join([*lines, ""]))
    return paths
