"""Pareto-smoothed importance sampling's diagnostic, for a whole batch at once."""

from math import inf, log10

import torch
from torch import Tensor

# Below this spread log-weights differ by rounding alone, and have no tail to fit.
ROUNDING = 1e-4


def pareto_k(log_weights: Tensor) -> Tensor:
    """Fit a generalised Pareto distribution to the largest importance weights.

    A shape below 0.5 means that the weights have a finite variance, above 0.7 that the importance
    estimate is unreliable, with few draws a little earlier (`largest_reliable_k`): the guide
    misses mass of the posterior.

    Args:
        log_weights: Log importance ratios in nats, of shape `draws batch`.

    Returns:
        The shape parameter k-hat, of shape `batch`; infinite with fewer than 25 draws, which have
        too short a tail, and zero where all weights are equal up to rounding.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024), JMLR 25(72)
        A New and Efficient Estimation Method for the Generalized Pareto Distribution
        (Zhang and Stephens, 2009), Technometrics 51(3)
    """
    return pareto_smoothed(log_weights)[1]


def pareto_smoothed(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Put the quantiles of the fitted tail in the place of the largest importance weights.

    Args:
        log_weights: As of `pareto_k`.

    Returns:
        The logarithms of the smoothed weights, which add to one for each data point, of shape
        `draws batch`, and what `pareto_k` returns. Where there is no tail they are as they were.

    References:
        Those of `pareto_k`
    """
    draws = log_weights.shape[0]
    tail_size = int(-(-min(0.2 * draws, 3 * draws**0.5) // 1))
    log_weights = log_weights.double()
    if tail_size < 5:
        return log_weights.log_softmax(0), torch.full_like(log_weights[0], inf)
    shifted = log_weights - log_weights.amax(0)
    largest, places = (part.flip(0) for part in shifted.exp().topk(tail_size + 1, dim=0))
    excess = (largest[1:] - largest[0]).clamp_min(torch.finfo(torch.double).tiny)
    k, scale = _fit(excess)
    share = (torch.arange(tail_size, dtype=k.dtype, device=k.device)[:, None] + 0.5) / tail_size
    quantiles = scale * torch.expm1(-k * torch.log1p(-share)) / k + largest[0]
    # No weight becomes larger than the largest one was.
    tail = quantiles.clamp(max=1.0).log()
    smooth = shifted.scatter(0, places[1:], tail)
    is_even = log_weights.amax(0) - log_weights.amin(0) < ROUNDING
    fitted = ~is_even & smooth.isfinite().all(0)
    found = torch.where(fitted, smooth, shifted)
    return found.log_softmax(0), torch.where(is_even, 0.0, k)


def largest_reliable_k(draws: int) -> float:
    """Return the k-hat above which an estimate from so many draws is not to be trusted.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024), JMLR 25(72), section 3.2
    """
    return min(1 - 1 / log10(draws), 0.7) if draws > 1 else -inf


def _fit(excess: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale of the generalised Pareto distribution of sorted excesses, `tail batch`."""
    n = len(excess)
    grid_size = 30 + int(n**0.5)
    grid = torch.arange(1, grid_size + 1, dtype=excess.dtype, device=excess.device)[:, None]
    quartile = excess[int(n / 4 + 0.5) - 1]
    theta = (1 - (grid_size / (grid - 0.5)).sqrt()) / (3 * quartile) + 1 / excess[-1]
    k = torch.log1p(-theta[:, None] * excess).mean(1)
    profile = n * ((-theta / k).log() - k - 1)
    theta = (profile.softmax(0) * theta).sum(0)
    k = torch.log1p(-theta * excess).mean(0)
    scale = -k / theta
    # A weak prior of ten observations at one half steadies short tails, as in the reference.
    return (n * k + 10 * 0.5) / (n + 10), scale
