"""Replicated data from model and guide, reduced to statistics while they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.data.batches import BatchMaker
from pyro_latents.distributions.likelihoods import GreyBernoulli
from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.evaluation.pareto import pareto_k
from pyro_latents.programs import (
    evaluation_mode,
    local_parameters,
    paired_traces,
    plate_nesting,
    random_sites,
    vectorised,
)

# Replicates in memory at a time, whatever the number of draws and of data points, and how many of
# them are of one data point at the most.
CHUNK, TOGETHER = 1000, 100
# Data points to look at, and replicates of each.
SHOWN, SHOWN_DRAWS = 12, 4
# Of the prior: so many of the draws are kept as they are.
PRIOR_CHUNK = 2000

Statistics = Mapping[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Replicates:
    """Statistics of data and of their replicates.

    Args:
        observed: Each statistic of the data, of shape `points`.
        replicated: Each statistic of the replicates, of shape `draws points`.
        latents: Draws of the guide's sites, each of shape `draws points ...`.
        log_likelihood: Log-density of the observed site, in nats, of shape `draws points`.
        log_weight: Log importance weight of each draw, in nats, of shape `draws points`; None
            where an auxiliary site is maximised, whose draws have no such weight.
        examples: Some data points and replicates of each, `shown *x_shape` and
            `shown_draws shown *x_shape`, to look at.
    """

    observed: dict[str, Tensor]
    replicated: dict[str, Tensor]
    latents: dict[str, Tensor] = field(default_factory=dict)
    log_likelihood: Tensor | None = None
    log_weight: Tensor | None = None
    examples: tuple[Tensor, Tensor] | None = None

    @property
    def k_hat(self) -> Tensor:
        """The Pareto shape of each data point's weights, of shape `points`."""
        assert self.log_weight is not None
        return pareto_k(self.log_weight)

    def u_values(self) -> dict[str, Tensor]:
        """Return the share of replicates below each data point, ties by halves: `points`."""
        return {
            name: (reps < self.observed[name]).double().mean(0)
            + (reps == self.observed[name]).double().mean(0) / 2
            for name, reps in self.replicated.items()
        }

    def p_values(self) -> dict[str, float]:
        """Return for each statistic the two-sided p-value of its mean over the data points."""
        found = {}
        for name, reps in self.replicated.items():
            means, mean = reps.double().mean(1), self.observed[name].double().mean()
            below, above = (means <= mean).sum().item(), (means >= mean).sum().item()
            found[name] = min(1.0, 2 * (1 + min(below, above)) / (1 + len(means)))
        return found

    def outside(self) -> dict[str, float]:
        """Return the share of data points outside the central 95 % of their replicates."""
        half = (1 - 0.95) / 2
        return {
            name: ((u < half) | (u > 1 - half)).double().mean().item()
            for name, u in self.u_values().items()
        }


def replicates(
    model: Callable,
    guide: Callable,
    batches: BatchMaker,
    statistics: Statistics,
    *,
    draws: int = 200,
    points: int | None = None,
    site: str = "x",
    seed: int = 0,
    progress: bool = True,
) -> Replicates:
    """Draw replicates of each data point given itself, and keep their statistics alone.

    The observed sites of the model are drawn anew at the guide's latent values, as
    `pyro.poutine.uncondition` does. Grey pixels under a Bernoulli likelihood are binarised once,
    as the model reads them; its replicates are binary.

    Args:
        model: The generative model.
        guide: Its guide.
        batches: The maker of the batches of the data.
        statistics: What is kept of each replicate, by name.
        draws: Replicates of each data point.
        points: Data points, the first ones; None for all.
        site: The observed site to look at.
        seed: Of the draws.
        progress: Whether to show a progress bar.

    Raises:
        UserError: if there are no draws, or the model has no such observed site.
    """
    check_counts(1, draws=draws)
    counts = [min(TOGETHER, draws - done) for done in range(0, draws, TOGETHER)]
    size, bar = max(1, CHUNK // counts[0]), "replicates" if progress else None
    parts: list[dict[str, Any]] = []
    examples = None
    with torch.no_grad(), local_parameters(model, guide), evaluation_mode(model, guide):
        for batch in seeded_batches(batches, points=points, size=size, seed=seed, description=bar):
            if not parts:
                nesting = plate_nesting(poutine.trace(guide).get_trace(*batch))
            chunks = []
            for count in counts:
                several = [vectorised(program, count, nesting) for program in (model, guide)]
                found, shown = _kept(*paired_traces(*several, *batch), statistics, site, count)
                chunks.append(found)
                examples = examples or shown
            # What is observed is the same for all draws.
            parts.append(_joined(chunks, 0) | {"observed": chunks[0]["observed"]})
    whole = _joined(parts, 1, points)
    observed = {name: value[0] for name, value in whole.pop("observed").items()}
    return Replicates(observed, **whole, examples=examples)


def prior_statistics(
    model: Callable, statistics: Statistics, *, draws: int, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw data from the model alone, by its keyword ``size``.

    Returns:
        Each statistic, of shape `draws`, and the first data points as they are.
    """
    torch.manual_seed(seed)
    parts: list[dict[str, Tensor]] = []
    with torch.no_grad(), local_parameters(model), evaluation_mode(model):
        for start in range(0, draws, PRIOR_CHUNK):
            trace = poutine.trace(model).get_trace(size=min(PRIOR_CHUNK, draws - start))
            x: Any = trace.nodes["x"]["value"]
            if not parts:
                first = x
            parts.append({name: statistic(x) for name, statistic in statistics.items()})
    return _joined(parts, 0), first


def binarised_like(x: Tensor, fn: Any) -> Tensor:
    """Return data points as a likelihood reads them: grey pixels binarised under a Bernoulli."""
    if isinstance(getattr(fn, "base_dist", fn), GreyBernoulli):
        return torch.bernoulli(x)
    return x


def _kept(
    scored: Trace, drawn: Trace, statistics: Statistics, site: str, draws: int
) -> tuple[dict[str, Any], tuple[Tensor, Tensor]]:
    """What is kept of some draws for a batch, by field of `Replicates`, and some to look at."""
    if site not in scored.nodes or not scored.nodes[site]["is_observed"]:
        raise UserError(f"the model has no observed site {site!r} to check.")
    node: Any = scored.nodes[site]
    observed = binarised_like(node["value"], node["fn"])
    replicate = node["fn"].sample()
    found = {
        "observed": {name: s(observed)[None].float() for name, s in statistics.items()},
        "replicated": {name: s(replicate).float() for name, s in statistics.items()},
        "latents": {
            name: s["value"].expand(draws, *s["value"].shape[1:])
            for name, s in random_sites(drawn)
            if not s["is_observed"] and s["value"].shape[:1] == (draws,)
        },
        "log_likelihood": node["log_prob"],
    }
    if not any("maximize" in s["infer"] for _, s in random_sites(scored)):
        found["log_weight"] = _total(scored) - _total(drawn)
    return found, (observed[:SHOWN].cpu(), replicate[:SHOWN_DRAWS, :SHOWN].cpu())


def _total(trace: Trace) -> Tensor:
    return sum((s["log_prob"] for _, s in random_sites(trace)), torch.zeros(()))


def _joined(parts: Sequence[Any], dim: int, size: int | None = None) -> Any:
    """Join what was kept along a dimension, and cut it to a size; dictionaries value by value."""
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts], dim, size) for name in parts[0]}
    whole = torch.cat(list(parts), dim).cpu()
    return whole if size is None else whole.narrow(dim, 0, min(size, whole.shape[dim]))
