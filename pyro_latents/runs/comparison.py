"""Runs of one story on one data set, side by side."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from pyro_latents.checks.reference_io import read_reference
from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.active_units import active_units
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import Metrics, averages
from pyro_latents.evaluation.paired import PairedDifference, paired_difference
from pyro_latents.evaluation.reference import score_against
from pyro_latents.files import check_writable, write_json
from pyro_latents.plots import dots, save
from pyro_latents.runs.annealing import Annealing, annealed_metrics
from pyro_latents.runs.opened import Opened
from pyro_latents.runs.trained_model import TrainedModel, has_model_of
from pyro_latents.runs.units import PER_CENT, unit_of
from pyro_latents.text import aligned

# What is drawn.
LIKELIHOODS = ("elbo", "log_likelihood", "log_evidence_ais")
# What is said of each run first, where the story measures it; the divergences follow.
FIRST = (*LIKELIHOODS, "gap", "k_hat_above_threshold", "effective_sample_size")


@dataclass(frozen=True)
class Comparison:
    """A row of figures for each run, and how each differs from the first.

    Args:
        labels: What the runs are called: the guide, and the folder where two have one guide.
        rows: The figures of each run by name; log-probabilities in nats per data point, shares in
            per cent.
        differences: Of each run but the first, from the first, by the name of what every data
            point has a value of.
        one_model: Whether all runs have the same model, and differ in their guides alone.
    """

    labels: tuple[str, ...]
    rows: tuple[dict[str, float], ...]
    differences: tuple[dict[str, PairedDifference], ...]
    one_model: bool

    @property
    def columns(self) -> list[str]:
        """The names of all figures, the most telling first."""
        return _ordered(self.rows)

    @property
    def verdict(self) -> str:
        """What may be concluded from the differences, in a line."""
        if self.one_model:
            return "The runs have one model: their differences are those of the guides."
        return (
            "warning: the runs have models of their own, and their differences are not those of "
            "the guides alone: train guides for one model with `train RECIPE --model-from RUN`."
        )

    def as_text(self) -> str:
        """Return a table with one line for each figure and one column for each run.

        Below it are the differences from the first run, with the standard errors of their means
        over the data points, and whether the runs have one model.
        """
        rows = [
            [_named(name), *(_shown(row.get(name)) for row in self.rows)] for name in self.columns
        ]
        table = aligned([["", *self.labels], *rows], right=True)
        names = _ordered(self.differences)
        apart = [
            [_named(name), *(str(d.get(name, "")) for d in self.differences)] for name in names
        ]
        head = f"differences from {self.labels[0]}"
        below = aligned([[head, *self.labels[1:]], *apart], right=True)
        return "\n\n".join([table, below, self.verdict])

    def figure(self) -> Figure:
        """Draw the likelihoods of every run, and the differences with two standard errors."""
        names = [name for name in LIKELIHOODS if name in self.columns]
        heights = {name: [row.get(name, math.nan) for row in self.rows] for name in names}
        nothing = PairedDifference(0.0, 0.0, 0)
        apart = {
            name: [nothing, *(found.get(name, nothing) for found in self.differences)]
            for name in names
            if any(name in found for found in self.differences)
        }
        bars = {name: [(d.mean, 2 * d.standard_error) for d in ds] for name, ds in apart.items()}
        return dots(heights, self.labels, "nats per data point", differences=bars)

    def write(self, folder: Path) -> list[Path]:
        """Write ``comparison.json`` and ``comparison.png`` and return their paths.

        Raises:
            UserError: if the folder holds a comparison already, or cannot be written.
        """
        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "comparison.json"
        differences = [{n: d._asdict() for n, d in found.items()} for found in self.differences]
        content = {
            "runs": dict(zip(self.labels, self.rows, strict=True)),
            "differences": dict(zip(self.labels[1:], differences, strict=True)),
            "from": self.labels[0],
            "one_model": self.one_model,
        }
        write_json(path, content)
        return [path, save(self.figure(), folder / "comparison.png")]


def check_free(folder: Path) -> None:
    """Raise a `UserError`, before minutes are spent, if a comparison cannot be written there."""
    check_writable(folder, "give another --out")
    if (folder / "comparison.json").exists():
        raise UserError(f"{folder} holds a comparison already: give another --out, or delete it.")


def compare(
    runs: Sequence[Opened],
    *,
    particles: int = 1000,
    points: int = 100,
    evidence: str = "iwae",
) -> Comparison:
    """Measure runs of one story on the same test data, with the same draws of what is random.

    Runs of one model are scored against reference posteriors too, where one of them has some
    (`pyro-latents reference`).

    Args:
        runs: At least two of them.
        particles: Importance samples for the marginal likelihood of a data point.
        points: Test points to measure on, the first ones.
        evidence: ``iwae``, importance sampling, or ``ais``, which anneals beside it: slower, and
            of use where k-hat is too high.

    Raises:
        UserError: if there are fewer than two runs, or they are of different models or data.
    """
    check_counts(1, points=points)
    how = Annealing(evidence, points=points)
    if len(runs) < 2:
        raise UserError("compare two runs or more: give their folders.")
    for other in runs[1:]:
        _check_comparable(runs[0], other)
    sampling = ImportanceSampling(particles, points)
    measured = [_measured(run, runs[0].parts.seed, sampling, how) for run in runs]
    one_model = _have_one_model(runs)
    if one_model:
        measured = [m | s for m, s in zip(measured, _scores(runs), strict=True)]
        _measure_gaps_from_one_evidence(measured)
    first, *others = measured
    return Comparison(
        _labels(runs),
        tuple(averages(found) for found in measured),
        tuple(_differences(first, found) for found in others),
        one_model,
    )


def _measured(run: Opened, seed: int, sampling: ImportanceSampling, how: Annealing) -> Metrics:
    """The figures of a run; what each data point has is a tensor."""
    parts, points = copy.copy(run.parts), sampling.points
    # Grey pixels that are drawn anew are the same for all.
    parts.seed = seed
    batches = parts.batches("test", limit=points)
    found = {"test_points": len(batches), **parts.story.metrics(parts, batches, sampling)}
    bound, likelihood = found.get("elbo"), found.get("log_likelihood")
    if isinstance(bound, Tensor) and isinstance(likelihood, Tensor):
        found.setdefault("gap", likelihood - bound)
    found |= annealed_metrics(parts, batches, how)
    active = active_units(parts.guide, batches, seed=seed)
    found |= {f"active_units_{site}": number for site, number in active.items()}
    found["guide_parameters"] = _size(parts.guide, parts.model)
    found["seconds_per_step"] = _seconds_per_step(run.folder.read_history())
    return found


def _scores(runs: Sequence[Opened]) -> list[Metrics]:
    """How near the guides are to the reference posteriors that a run has, if chains agree."""
    path = next((p for run in runs if (p := run.folder.reference_path).exists()), None)
    if path is None:
        return [{} for _ in runs]
    reference, x, about = read_reference(path)
    if about["model"] != TrainedModel.of(runs[0].folder).hash:
        raise UserError(f"{path} is of a model that the run had before: delete it, or draw anew.")
    if not bool(reference.is_agreed.any()):
        return [{} for _ in runs]
    found: list[Metrics] = []
    for run in runs:
        torch.manual_seed(runs[0].parts.seed)
        programs = run.parts.story.alone(run.parts)
        found.append({**score_against(reference, *programs, x.to(run.parts.device)).by_name()})
    return found


def _measure_gaps_from_one_evidence(measured: Sequence[Metrics]) -> None:
    """Let all bounds of one model end at one `log p(x)`, so that their order is that of guides.

    Each estimate of `p(x)` is unbiased, and so is their mean; it is as good as the best of them.
    """
    names = ("log_likelihood", "log_evidence_ais")
    values = [found.get(name) for found in measured for name in names]
    estimates = [value for value in values if isinstance(value, Tensor)]
    if not estimates:
        return
    evidence = torch.stack(estimates).logsumexp(0) - math.log(len(estimates))
    for found in measured:
        own, gap = found.get("log_likelihood"), found.get("gap")
        if isinstance(own, Tensor) and isinstance(gap, Tensor):
            found["gap"] = gap + evidence - own


def _differences(first: Metrics, other: Metrics) -> dict[str, PairedDifference]:
    """What differs between two runs, of what both have of the same data points."""
    found = {}
    for name, value in first.items():
        theirs = other.get(name)
        if isinstance(value, Tensor) and isinstance(theirs, Tensor):
            found[name] = paired_difference(value, theirs)
    return found


def _have_one_model(runs: Sequence[Opened]) -> bool:
    first, *others = [TrainedModel.of(run.folder) for run in runs]
    return all(first.is_that_of(other, lambda: runs[0].parts.splits) for other in others)


def _check_comparable(first: Opened, other: Opened) -> None:
    if not has_model_of(first.story, other.story):
        todo = "compare runs that differ in their guides or settings alone"
        _refuse("stories", first, other, first.story.name, other.story.name, todo)
    # What they are measured on, which may be other data than they were trained on.
    mine, theirs = (run.parts.story.data for run in (first, other))
    if mine != theirs:
        todo = "measure both on one of them, which --data names"
        _refuse("data", first, other, mine, theirs, todo)


def _refuse(
    what: str, first: Opened, other: Opened, mine: str, theirs: str, todo: str
) -> NoReturn:
    raise UserError(
        f"{first.training_path} and {other.training_path} are of different {what}, {mine} and "
        f"{theirs}: {todo}."
    )


def _ordered(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names in any of the rows, the most telling first."""
    names = dict.fromkeys(name for row in rows for name in row)
    return list(dict.fromkeys([*(name for name in FIRST if name in names), *names]))


def _labels(runs: Sequence[Opened]) -> tuple[str, ...]:
    guides = [run.config["guide"] for run in runs]
    if len(set(guides)) == len(guides):
        return tuple(guides)
    return tuple(f"{guide} ({run.training_path})" for guide, run in zip(guides, runs, strict=True))


def _size(guide: Any, model: nn.Module) -> int:
    """The number of the guide's parameters, without those that it shares with the model."""
    if not isinstance(guide, nn.Module):
        return 0
    shared = set(model.parameters())
    return sum(own.numel() for own in guide.parameters() if own not in shared)


def _seconds_per_step(history: list[dict[str, str]]) -> float:
    seconds = [float(row["seconds"]) for row in history]
    return sum(filter(math.isfinite, seconds)) / int(history[-1]["step"])


def _named(name: str) -> str:
    """The name of a figure, with the sign of per cent for shares."""
    return f"{name} ({PER_CENT})" if unit_of(name) == PER_CENT else name


def _shown(value: float | None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return "" if value is None else str(value)
