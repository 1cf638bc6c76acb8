"""Pareto-smoothed importance sampling's diagnostic, for a whole batch at once."""

import torch
from torch import Tensor

# Below this spread log-weights differ by rounding alone, and have no tail to fit.
ROUNDING = 1e-4


def pareto_k(log_weights: Tensor) -> Tensor:
    """Fit a generalised Pareto distribution to the largest importance weights.

    A shape below 0.5 means that the weights have a finite variance, above 0.7 that the importance
    estimate is unreliable: the guide misses mass of the posterior.

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
    draws = log_weights.shape[0]
    tail_size = int(-(-min(0.2 * draws, 3 * draws**0.5) // 1))
    if tail_size < 5:
        return torch.full_like(log_weights[0], torch.inf)
    log_weights = log_weights.double()
    ratios = (log_weights - log_weights.amax(0)).exp()
    largest = ratios.topk(tail_size + 1, dim=0).values.flip(0)
    excess = (largest[1:] - largest[0]).clamp_min(torch.finfo(torch.double).tiny)
    spread = log_weights.amax(0) - log_weights.amin(0)
    return torch.where(spread < ROUNDING, 0.0, _fit_shape(excess))


def _fit_shape(excess: Tensor) -> Tensor:
    """Shape of the generalised Pareto distribution of sorted excesses, of shape `tail batch`."""
    n = len(excess)
    grid_size = 30 + int(n**0.5)
    grid = torch.arange(1, grid_size + 1, dtype=excess.dtype, device=excess.device)[:, None]
    quartile = excess[int(n / 4 + 0.5) - 1]
    theta = (1 - (grid_size / (grid - 0.5)).sqrt()) / (3 * quartile) + 1 / excess[-1]
    k = torch.log1p(-theta[:, None] * excess).mean(1)
    profile = n * ((-theta / k).log() - k - 1)
    theta = (profile.softmax(0) * theta).sum(0)
    k = torch.log1p(-theta * excess).mean(0)
    # A weak prior of ten observations at one half steadies short tails, as in the reference.
    return (n * k + 10 * 0.5) / (n + 10)
