"""Operators to begin training with, fitted to pairs of points."""

import torch
from torch import Tensor

from pyro_latents.transport.coefficients import infer_coefficients
from pyro_latents.transport.exponential import transport

# A draw has entries of this size once its operators are normalised; their scale is free, as the
# coefficients take it up, but for the weight of the L1 term.
_NORM = 0.03
_PAIRS = 160


def fit_operators(
    start: Tensor,
    end: Tensor,
    num_operators: int,
    l1_weight: float,
    *,
    candidates: int = 200,
    finalists: int = 6,
    steps: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The best of many random dictionaries, the most promising of which are trained a little.

    Operators that are learned from one random draw may end where paths wind the wrong way, which
    no later step mends. Candidates are drawn, and compared, in coordinates in which the points
    have unit second moments in all directions, so that none of them counts for more.

    Args:
        start: Where paths begin, of shape `batch z_dim`.
        end: Where they end, of shape `batch z_dim`.
        num_operators: The number of operators.
        l1_weight: The weight of the L1 term.
        candidates: How many dictionaries are drawn.
        finalists: How many of them are trained.
        steps: Steps of Adam for each of these.
        generator: Source of all draws.

    Returns:
        The operators, of shape `num_operators z_dim z_dim`.
    """
    to_white, from_white = _second_moment_roots(torch.cat([start, end]))
    start, end = start @ to_white, end @ to_white
    draws = torch.randn(
        candidates, num_operators, start.shape[1], start.shape[1], generator=generator
    ).to(start)
    draws = _NORM * draws / torch.linalg.matrix_norm(draws, 2)[..., None, None]
    index = torch.randperm(len(start), generator=generator)[:_PAIRS].to(start.device)

    def score(psi: Tensor) -> float:
        found = infer_coefficients(psi, start[index], end[index], l1_weight, generator=generator)
        return found[1].mean().item()

    order = torch.tensor([score(psi) for psi in draws]).argsort()[:finalists]
    trained = [_train(draws[i], start, end, l1_weight, steps, generator) for i in order]
    best = min(trained, key=score)
    # Row vectors: z -> z W moves psi to W^-T psi W^T.
    return from_white.T @ best @ to_white.T


def _train(
    psi: Tensor,
    start: Tensor,
    end: Tensor,
    l1_weight: float,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    psi = psi.clone().requires_grad_()
    optimizer = torch.optim.Adam([psi], lr=0.02 * _NORM)
    for _ in range(steps):
        rows = torch.randint(len(start), (_PAIRS,), generator=generator).to(start.device)
        c, _ = infer_coefficients(psi, start[rows], end[rows], l1_weight, generator=generator)
        loss = (transport(psi, c, start[rows]) - end[rows]).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return psi.detach()


def _second_moment_roots(points: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse square root of the second moments, and the square root."""
    values, vectors = torch.linalg.eigh(points.T @ points / len(points))
    root = values.clamp_min(1e-6 * float(values[-1])).sqrt()
    return (vectors / root) @ vectors.T, (vectors * root) @ vectors.T
