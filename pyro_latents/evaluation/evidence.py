"""The marginal likelihood of each data point by importance sampling, with diagnostics."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from numbers import Integral
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.data.batches import Batches, BatchMaker, mixed_seed
from pyro_latents.errors import UserError
from pyro_latents.evaluation.pareto import pareto_k
from pyro_latents.programs import local_parameters, paired_traces, random_sites
from pyro_latents.progress import watched

# Latent draws decoded at a time; it bounds the memory whatever the number of particles.
CHUNK = 1000


@dataclass(frozen=True)
class Evidence:
    """What importance sampling says of each data point.

    Args:
        log_evidence: The estimate of `log p(x)` in nats, of shape `batch`.
        k_hat: The Pareto shape of the weights, of shape `batch`: above 0.7 distrust the estimate.
        ess: The effective sample size of the weights, of shape `batch`.
    """

    log_evidence: Tensor
    k_hat: Tensor
    ess: Tensor


@dataclass(frozen=True)
class ImportanceSampling:
    """How the marginal likelihood of a data set is estimated.

    Args:
        particles: Importance samples for each data point.
        points: Data points to estimate it for, the first ones: each of them takes a decoder pass
            a particle.

    Raises:
        UserError: if one of them is not positive.
    """

    particles: int = 1000
    points: int = 1000

    def __post_init__(self) -> None:
        for option, value in (("particles", self.particles), ("likelihood-points", self.points)):
            # Written so that what is not a number fails.
            if not value >= 1:
                raise UserError(f"--{option} must be at least 1; got {value}.")
            if not isinstance(value, Integral):
                raise UserError(f"--{option} must be a whole number; got {value}.")


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
            part = [a[start : start + rows] if _is_per_data_point(a, size) else a for a in batch]
            if not parts:
                plate_dim = _data_plate_dim(model, guide, part)
            log_weights = [
                _log_weights(model, guide, part, plate_dim, min(particles, num_particles - done))
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
    """`log_evidence` of a data set; the arguments are those of `bound_terms`.

    Args:
        model: The generative model.
        guide: The proposal.
        batches: The maker of the batches of the data set.
        num_particles: Importance samples for each data point.
        points: The number of data points, the first ones; None for all.
        seed: Of the draws.
        batch_size: Data points at a time.
        progress: Whether to show a progress bar.
    """
    points = min(points or len(batches), len(batches))
    loader = Batches(batches, min(batch_size, points), seed=seed, shuffle=False)
    parts: list[Evidence] = []
    numbers = range(-(-points // loader.batch_size))
    for number in watched(numbers, "log likelihood", shown=progress):
        torch.manual_seed(mixed_seed(seed, number))
        parts.append(
            log_evidence(model, guide, *loader.batch(number), num_particles=num_particles)
        )
    whole = _concatenated(parts)
    return Evidence(whole.log_evidence[:points], whole.k_hat[:points], whole.ess[:points])


def _log_weights(
    model: Callable, guide: Callable, batch: list[Any], plate_dim: int, particles: int
) -> Tensor:
    """Log importance weights of shape `particles batch`."""
    plate = pyro.plate("_particles", particles, dim=plate_dim - 1)
    model_trace, guide_trace = paired_traces(plate(model), plate(guide), *batch)
    return _per_data_point(model_trace, plate_dim) - _per_data_point(guide_trace, plate_dim)


def _per_data_point(trace: Trace, plate_dim: int) -> Tensor:
    """The log-density of all sites, of shape `particles batch`."""
    total = torch.zeros(())
    for _, site in random_sites(trace):
        log_prob = site["log_prob"]
        inner = range(plate_dim + 1, 0)
        total = total + (log_prob.sum(tuple(inner)) if inner else log_prob)
    return total


def _data_plate_dim(model: Callable, guide: Callable, batch: list[Any]) -> int:
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
    dims = [f.dim for _, site in sites for f in site["cond_indep_stack"] if f.vectorized]
    plate_dim = min(dims, default=0)
    for name, site in sites:
        frames = {f.dim: f for f in site["cond_indep_stack"]}
        if plate_dim not in frames or frames[plate_dim].size != size:
            raise UserError(
                f"site {name!r} lies outside of a data plate of size {size}: put every sample "
                f"site in one outermost `pyro.plate`, so that each data point has its own weight."
            )
    return plate_dim


def _is_per_data_point(argument: Any, size: int) -> bool:
    return isinstance(argument, Tensor) and argument.dim() > 0 and len(argument) == size


def _summarise(log_weights: Tensor) -> Evidence:
    total = log_weights.logsumexp(0)
    return Evidence(
        log_evidence=total - log(len(log_weights)),
        k_hat=pareto_k(log_weights).to(total.dtype),
        ess=(2 * total - (2 * log_weights).logsumexp(0)).exp(),
    )


def _concatenated(parts: list[Evidence]) -> Evidence:
    return Evidence(
        log_evidence=torch.cat([part.log_evidence for part in parts]),
        k_hat=torch.cat([part.k_hat for part in parts]),
        ess=torch.cat([part.ess for part in parts]),
    )
