"""Replicated data from model and guide, reduced to statistics while they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.data.batches import Batches, BatchMaker, mixed_seed
from pyro_latents.distributions.likelihoods import GreyBernoulli
from pyro_latents.errors import UserError
from pyro_latents.evaluation.pareto import pareto_k
from pyro_latents.programs import (
    evaluation_mode,
    local_parameters,
    plate_nesting,
    random_sites,
    vectorised,
)
from pyro_latents.progress import watched

# Replicates in memory at a time, whatever the number of draws and of data points.
CHUNK = 1000
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

    def outside(self, level: float = 0.95) -> dict[str, float]:
        """Return the share of data points outside the central interval of their replicates."""
        half = (1 - level) / 2
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
    shown: int = 12,
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
        shown: Data points of which replicates are kept as they are.
        progress: Whether to show a progress bar.

    Raises:
        UserError: if the number of draws is not positive, or the model has no such observed site.
    """
    if draws < 1:
        raise UserError(f"--draws must be at least 1; got {draws}.")
    points = min(points or len(batches), len(batches))
    together = min(draws, 100)
    loader = Batches(batches, min(max(1, CHUNK // together), points), seed=seed, shuffle=False)
    parts: list[dict[str, Tensor]] = []
    examples = None
    with torch.no_grad(), local_parameters(model, guide), evaluation_mode(model, guide):
        numbers = range(-(-points // loader.batch_size))
        for number in watched(numbers, "replicates", shown=progress):
            torch.manual_seed(mixed_seed(seed, number))
            batch = loader.batch(number)
            if number == 0:
                nesting = plate_nesting(poutine.trace(guide).get_trace(*batch))
            chunks = []
            for start in range(0, draws, together):
                kept = max(0, shown - number * loader.batch_size) if start == 0 else 0
                chunk, pictures = _chunk(
                    model,
                    guide,
                    batch,
                    statistics,
                    min(together, draws - start),
                    nesting,
                    site,
                    kept,
                )
                chunks.append(chunk)
                examples = examples or pictures
            parts.append(_joined(chunks, dim=0))
    whole = {name: value[:, :points] for name, value in _joined(parts, dim=1).items()}
    taken = {
        kind: {n.removeprefix(kind): v for n, v in whole.items() if n.startswith(kind)}
        for kind in ("observed.", "replicated.", "latent.")
    }
    return Replicates(
        observed={name: value[0] for name, value in taken["observed."].items()},
        replicated=taken["replicated."],
        latents=taken["latent."],
        log_likelihood=whole["log_likelihood"],
        log_weight=whole.get("log_weight"),
        examples=examples,
    )


def prior_statistics(
    model: Callable, statistics: Statistics, *, draws: int, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw data from the model alone, and keep their statistics.

    Args:
        model: The generative model, with a keyword ``size``.
        statistics: What is kept, by name.
        draws: Data points to draw.
        seed: Of the draws.

    Returns:
        Each statistic, of shape `draws`, and the first data points as they are.
    """
    torch.manual_seed(seed)
    parts, first = [], None
    with torch.no_grad(), local_parameters(model), evaluation_mode(model):
        for start in range(0, draws, PRIOR_CHUNK):
            trace = poutine.trace(model).get_trace(size=min(PRIOR_CHUNK, draws - start))
            x: Any = trace.nodes["x"]["value"]
            first = x if first is None else first
            parts.append({name: statistic(x) for name, statistic in statistics.items()})
    assert first is not None
    return _joined(parts, dim=0), first


def binarised_like(x: Tensor, fn: Any) -> Tensor:
    """Return data points as a likelihood reads them: grey pixels binarised under a Bernoulli."""
    if isinstance(getattr(fn, "base_dist", fn), GreyBernoulli):
        return torch.bernoulli(x)
    return x


def _chunk(
    model: Callable,
    guide: Callable,
    batch: tuple,
    statistics: Statistics,
    draws: int,
    nesting: int,
    site: str,
    shown: int,
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    drawn = poutine.trace(vectorised(guide, draws, nesting)).get_trace(*batch)
    several = poutine.replay(vectorised(model, draws, nesting), drawn)
    scored = poutine.trace(several).get_trace(*batch)
    if site not in scored.nodes or not scored.nodes[site]["is_observed"]:
        raise UserError(f"the model has no observed site {site!r} to check.")
    node: Any = scored.nodes[site]
    observed = binarised_like(node["value"], node["fn"])
    replicate = node["fn"].sample()
    for trace in (drawn, scored):
        trace.compute_log_prob()
    found = {f"observed.{n}": s(observed)[None].float() for n, s in statistics.items()}
    found |= {f"replicated.{n}": s(replicate).float() for n, s in statistics.items()}
    found |= {
        f"latent.{name}": s["value"].expand(draws, *s["value"].shape[1:])
        for name, s in random_sites(drawn)
        if not s["is_observed"] and s["value"].shape[:1] == (draws,)
    }
    found["log_likelihood"] = node["log_prob"]
    if not any("maximize" in s["infer"] for _, s in random_sites(scored)):
        found["log_weight"] = _total(scored) - _total(drawn)
    pictures = (observed[:shown].cpu(), replicate[:4, :shown].cpu()) if shown else None
    return found, pictures


def _total(trace: Trace) -> Tensor:
    return sum((s["log_prob"] for _, s in random_sites(trace)), torch.zeros(()))


def _joined(parts: list[dict[str, Tensor]], dim: int) -> dict[str, Tensor]:
    def join(name: str) -> Tensor:
        if dim == 0 and name.startswith("observed."):
            return parts[0][name]
        return torch.cat([part[name] for part in parts], dim).cpu()

    return {name: join(name) for name in parts[0]}
