"""The marginal likelihood of each data point by importance sampling, with diagnostics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.data.batches import BatchMaker
from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.evaluation.pareto import largest_reliable_k, pareto_k
from pyro_latents.programs import (
    local_parameters,
    paired_traces,
    plate_nesting,
    random_sites,
    vectorised,
)

# Latent draws decoded at a time; it bounds the memory whatever the number of particles.
CHUNK = 1000


class Evidence(NamedTuple):
    """What importance sampling says of each data point.

    Args:
        log_evidence: The estimate of `log p(x)` in nats, of shape `batch`.
        k_hat: The Pareto shape of the weights, of shape `batch`: see `is_unreliable`.
        ess: The effective sample size of the weights, of shape `batch`.
        elbo: The bound that the same draws give, the mean of the log weights in nats, of shape
            `batch`.
    """

    log_evidence: Tensor
    k_hat: Tensor
    ess: Tensor
    elbo: Tensor

    def is_unreliable(self, particles: int) -> Tensor:
        """Whether to distrust the estimate of each data point from so many particles."""
        return self.k_hat > largest_reliable_k(particles)


@dataclass(frozen=True)
class ImportanceSampling:
    """How the marginal likelihood of a data set is estimated.

    Args:
        particles: Importance samples for each data point.
        points: Data points to estimate it for, the first ones: each of them takes a decoder pass
            a particle.

    Raises:
        UserError: if one of them is not positive, or no whole number.
    """

    particles: int = 1000
    points: int = 1000

    def __post_init__(self) -> None:
        check_counts(1, particles=self.particles, likelihood_points=self.points)


def log_evidence(
    model: Callable, guide: Callable, *batch: Any, num_particles: int = 1000
) -> Evidence:
    r"""Estimate the marginal likelihood of each data point with the guide as the proposal.

    .. math:: \log p(x_i) \approx \log \frac{1}{K} \sum_k \frac{p(x_i, z_{ik})}{q(z_{ik} | x_i)}

    The model and the guide may be functions or modules. Their data plate is the outermost one and
    holds every sample site; sites in plates within it count towards their data point. Tensors
    among the arguments that are as long as the first are one row a data point; anything else is
    passed on as it is.

    Args:
        model: The generative model.
        guide: The proposal, with the latent sites of the model.
        *batch: The arguments of both; the first is a tensor of shape `batch ...`.
        num_particles: Importance samples `K` for each data point.

    Raises:
        UserError: if a sample site lies outside of the data plate, or the number of particles is
            not positive.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    """
    if not num_particles >= 1:
        raise UserError(f"num_particles must be at least 1; got {num_particles}.")
    size = len(batch[0])
    # Pyro's automatic guides are for the batch that they have seen, and for no part of it.
    whole = isinstance(guide, AutoGuide)
    particles = min(num_particles, max(1, CHUNK // size) if whole else CHUNK // 10)
    rows = size if whole else max(1, CHUNK // particles)
    parts: list[Evidence] = []
    with torch.no_grad(), local_parameters(model, guide):
        for start in range(0, size, rows):
            part = rows_of(batch, slice(start, start + rows))
            if not parts:
                plate_dim = data_plate_dim(model, guide, part)
            log_weights = [
                weighted(model, guide, part, plate_dim, min(particles, num_particles - done))[0]
                for done in range(0, num_particles, particles)
            ]
            parts.append(_summarise(torch.cat(log_weights)))
    return _concatenated(parts)


def log_evidence_of_batches(
    model: Callable,
    guide: Callable,
    batches: BatchMaker,
    *,
    num_particles: int = 1000,
    points: int | None = None,
    seed: int = 0,
    batch_size: int = 100,
    progress: bool = True,
) -> Evidence:
    """`log_evidence` of the first ``points`` of a data set, None for all, in batches."""
    bar = "log likelihood" if progress else None
    parts = [
        log_evidence(model, guide, *batch, num_particles=num_particles)
        for batch in seeded_batches(
            batches, points=points, size=batch_size, seed=seed, description=bar
        )
    ]
    return Evidence(*(value[:points] for value in _concatenated(parts)))


def weighted(
    model: Callable, guide: Callable, batch: list[Any], plate_dim: int, particles: int
) -> tuple[Tensor, Trace]:
    """Log importance weights of shape `particles batch`, and the draws of the guide they are of.

    The data plate is in ``plate_dim``, as `data_plate_dim` finds it.
    """
    programs = (vectorised(p, particles, -plate_dim, "_particles") for p in (model, guide))
    model_trace, guide_trace = paired_traces(*programs, *batch)
    log_weights = _per_data_point(model_trace, plate_dim) - _per_data_point(guide_trace, plate_dim)
    return log_weights, guide_trace


def _per_data_point(trace: Trace, plate_dim: int) -> Tensor:
    """The log-density of all sites, of shape `particles batch`."""
    inner, total = tuple(range(plate_dim + 1, 0)), torch.zeros(())
    for _, site in random_sites(trace):
        # Of no dimensions, torch would take the sum over all.
        total = total + (site["log_prob"].sum(inner) if inner else site["log_prob"])
    return total


def data_plate_dim(model: Callable, guide: Callable, batch: list[Any]) -> int:
    """The dimension of the outermost plate, which every site must be in."""
    size = len(batch[0])
    try:
        model_trace, guide_trace = paired_traces(model, guide, *batch)
    except (ValueError, RuntimeError) as error:
        if not isinstance(guide, AutoGuide):
            raise
        raise UserError(
            f"{type(guide).__name__} fits the batch that it was built with, not these {size} data "
            "points: give all of that batch at once."
        ) from error
    sites = [*random_sites(model_trace), *random_sites(guide_trace)]
    plate_dim = -plate_nesting(model_trace, guide_trace)
    for name, site in sites:
        frames = {f.dim: f for f in site["cond_indep_stack"]}
        if plate_dim not in frames or frames[plate_dim].size != size:
            raise UserError(
                f"site {name!r} lies outside of a data plate of size {size}: put every sample "
                f"site in one outermost `pyro.plate`, so that each data point has its own weight."
            )
    return plate_dim


def rows_of(batch: Sequence[Any], rows: slice | Tensor) -> list[Any]:
    """Return the arguments of some data points: these rows of all that has a row for each."""
    size = len(batch[0])
    return [a[rows] if _is_per_data_point(a, size) else a for a in batch]


def _is_per_data_point(argument: Any, size: int) -> bool:
    return isinstance(argument, Tensor) and argument.dim() > 0 and len(argument) == size


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Return how many equal weights are worth as much as those of each data point, `batch`."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def _summarise(log_weights: Tensor) -> Evidence:
    return Evidence(
        log_evidence=log_weights.logsumexp(0) - log(len(log_weights)),
        k_hat=pareto_k(log_weights).to(log_weights.dtype),
        ess=effective_sample_size(log_weights),
        elbo=log_weights.mean(0),
    )


def _concatenated(parts: list[Evidence]) -> Evidence:
    return Evidence(*map(torch.cat, zip(*parts, strict=True)))
