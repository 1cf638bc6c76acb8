"""The card of weights that come with the package: what they are, and what they come to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.checks.reference_io import read_reference
from pyro_latents.files import write_json, write_text
from pyro_latents.runs.folder import WEIGHTS, RunFolder
from pyro_latents.runs.recipe import Run
from pyro_latents.runs.registry import stored_story
from pyro_latents.runs.units import metric_rows, unit_of
from pyro_latents.runs.weights import MARKDOWN, PACKAGED, pretrained_names

JSON = "card.json"
# Of the metrics, what a list of weights tells.
TOLD = ("elbo", "log_likelihood")
# Shares of data points in per cent, by the metric that has how many.
SHARES = {
    "test_points": {"distance_error", "error_rate", "knn_accuracy", "svm_accuracy"},
    "log_likelihood_points": {"k_hat_above_threshold"},
}
SOURCES = {
    "mnist": "MNIST (LeCun, Cortes and Burges), CC BY-SA 3.0",
    "rotated-mnist": "MNIST (LeCun, Cortes and Burges), CC BY-SA 3.0, its digits turned",
    "street-mnist": "MNIST (LeCun, Cortes and Burges), CC BY-SA 3.0, as coloured house numbers",
    "fashion-mnist": "Fashion-MNIST (Xiao, Rasul and Vollgraf), MIT",
}
PROBED = 100


@dataclass(frozen=True)
class Probe:
    """Two figures that are found again wherever the weights are loaded.

    Args:
        data: The data set that they are of.
        points: Its first test points.
        mse: Mean squared error of their reconstructions, by number of a data point.
        log_q: Log-density of the posterior at its centre, of all sites, in nats per data point.
    """

    data: str
    points: int
    mse: float
    log_q: float


@dataclass(frozen=True)
class Card:
    """What the other files of the weights do not have.

    Args:
        name: Of the weights, with their version.
        sha256: Of the file of parameters.
        bits: Of each number.
        rounding: What 16 bits change of the bound of test points, in nats per data point, and the
            standard error of that bound; None where 16 bits were not tried.
        numbers: Hyper-parameters that were not those of the recipe, or that it may have otherwise.
        made: The day.
        hardware: What they were trained and measured on.
        command: What makes them anew.
        probes: Figures to find again, of embedded or simulated data first.
    """

    name: str
    sha256: str
    bits: int
    rounding: tuple[float, float] | None
    numbers: dict[str, Any]
    made: str
    hardware: str
    command: str
    probes: tuple[Probe, ...]


def probe(run: Run, points: int = PROBED) -> Probe:
    """Find the figures of a probe, of the data that a run is opened with."""
    examples = run.parts.splits.test.take(slice(points))
    with torch.random.fork_rng():
        # The centre of a flow is one of draws.
        torch.manual_seed(0)
        error = (run.reconstruct(examples.x) - examples.x).square()
        codes, posterior = run.encode(examples.x), run.posterior(examples.x)
    log_q = sum(q.log_prob(codes[name]).double().mean().item() for name, q in posterior.items())
    return Probe(run.parts.story.data, len(examples), error.double().mean().item(), log_q)


def hash_of(folder: Path) -> str:
    """Return the SHA-256 of the parameters of weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def size_of(folder: Path) -> int:
    """Return the bytes of all files of weights."""
    return sum(path.stat().st_size for path in folder.iterdir())


def write_card(card: Card, folder: Path) -> None:
    """Write a card into the folder of its weights, for programs and for people."""
    write_json(folder / JSON, asdict(card))
    write_text(folder / MARKDOWN, as_markdown(folder))


def read_card(folder: Path) -> Card:
    """Return the card of weights."""
    found = json.loads((folder / JSON).read_text())
    probes = tuple(Probe(**p) for p in found.pop("probes"))
    rounding = found.pop("rounding")
    return Card(**found, rounding=rounding and tuple(rounding), probes=probes)


def rows() -> Iterator[tuple[str, ...]]:
    """Return the name, recipe, guide, size and figures of all weights of the package."""
    yield "weights", "recipe", "guide", "MB", *(f"{name}, {unit_of(name)}" for name in TOLD)
    for name in pretrained_names():
        folder = PACKAGED / name
        config, metrics = RunFolder(folder).read_config(), RunFolder(folder).read_metrics()
        known = dict(row[:2] for row in metric_rows(metrics))
        size = f"{size_of(folder) / 1e6:.2f}"
        yield name, config["recipe"], config["guide"], size, *(known.get(n, "") for n in TOLD)


def with_errors(metrics: dict[str, float]) -> dict[str, float]:
    """Add to metrics the standard errors of shares of data points.

    They are those of a binomial, of which two more are counted on either side: no share is sure.

    Example:
        >>> found = with_errors({"test_points": 100, "error_rate": 0.0})
        >>> round(found["error_rate_se"], 2)
        1.35
    """
    errors = {}
    for points, shares in SHARES.items():
        for name in shares & metrics.keys():
            number = metrics[points] + 4
            share = (metrics[name] / 100 * metrics[points] + 2) / number
            errors[f"{name}_se"] = 100 * math.sqrt(share * (1 - share) / number)
    return {**errors, **metrics}


def as_markdown(folder: Path) -> str:
    """Return the card of weights as a page."""
    card, run = read_card(folder), RunFolder(folder)
    what = _table(("", ""), *_told(card, folder))
    figures = _table(("figure", "value", "unit"), *metric_rows(with_errors(run.read_metrics())))
    probes = _table(
        ("data", "points", "mse", "log q, nats per data point"),
        *((p.data, str(p.points), f"{p.mse:.6g}", f"{p.log_q:.6g}") for p in card.probes),
    )
    return f"""# {card.name}

{what}

## Figures

Of the first test points, with standard errors over these. One training: what another seed would
change is not in them.

{figures}

## To find again

Of the first test points of each data set, without their labels: the squared error of their
reconstructions by number, and the log-density of the posterior at its centre. A test finds both
again.

{probes}

## Made anew

    {card.command}
"""


def _told(card: Card, folder: Path) -> Iterator[tuple[str, str]]:
    run = RunFolder(folder)
    config, last = run.read_config(), run.read_history()[-1]
    story = stored_story(config, folder)
    seconds = sum(float(row["seconds"]) for row in run.read_history())
    yield "story", f"{story.name} ({story.paper})"
    yield "recipe, guide", f"{config['recipe']}, {config['guide']}"
    if origin := config.get("model_from"):
        yield "model", f"that of {origin['run']}, frozen"
    yield "data", SOURCES.get(story.data, story.data)
    if card.numbers:
        yield "with", ", ".join(f"{name} {value}" for name, value in card.numbers.items())
    yield (
        "training",
        f"{last['epoch']} epochs, {last['step']} steps of batches of {story.batch_size}, "
        f"{seconds:.0f} s on {card.hardware}, seed {config['seed']}, {card.made}",
    )
    yield "numbers", f"{card.bits} bits each{_rounding(card)}"
    if run.reference_path.exists():
        agreed = read_reference(run.reference_path)[0].is_agreed
        yield "reference posteriors", f"of the first {len(agreed)} test points; {_agreed(agreed)}"
    yield "size", f"{(folder / WEIGHTS).stat().st_size / 1e6:.2f} MB"
    yield "versions", ", ".join(f"{name} {v}" for name, v in config["versions"].items())
    yield "SHA-256", card.sha256


def _agreed(agreed: Tensor) -> str:
    count = int(agreed.sum())
    return "all chains agree" if count == len(agreed) else f"the chains of {count} agree"


def _rounding(card: Card) -> str:
    if card.rounding is None:
        return ""
    moved, error = card.rounding
    return f"; 16 move the bound by {moved:+.1g} nats, whose standard error is {error:.2g}"


def _table(head: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)
