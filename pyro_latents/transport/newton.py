r"""Batched proximal Newton (Levenberg-Marquardt) for residuals with a weighted L1 term.

Minimises :math:`f(c) + \sum_m \lambda_m |c_m|` for many problems at once. A step minimises

.. math::
    g^\top \delta + \tfrac12 \delta^\top (H + \mu I) \delta
    + \sum_m \lambda_m |c_m + \delta_m|

over the orthant that the signs (or, at zero, the slopes) of the coefficients point to: a
coefficient that would cross zero stops there, and the others are solved for again. H is the exact
Hessian where `H + mu I` is positive definite, and the Gauss-Newton matrix elsewhere. The damping
falls when the model foretold the decrease well and grows when it did not. Problems that have
converged leave the batch.

The operators are expected to have norm one, so that a unit of c is about a radian.
"""

from typing import Protocol

import torch
from torch import Tensor

from pyro_latents.transport.derivatives import Derivatives


class Problem(Protocol):
    """Many residuals, the batch in the last dimension of every tensor."""

    def derivatives(self, c: Tensor, *, exact: bool = True) -> Derivatives:
        """Value and derivatives at `c`, of shape `num_operators batch`."""
        ...

    def take(self, index: Tensor) -> "Problem":
        """The problems of the columns `index`."""
        ...


_FIRST_DAMPING = 1e-2  # relative to the largest diagonal element of J^T J
_FLOOR = 0.3  # damping is at least this times lambda: a null direction then moves by 1/0.3
_LONGEST_STEP = 1.0
_LARGEST_NORM = 40.0
_TOLERANCE = 1e-5


def minimise(
    problem: Problem, c: Tensor, weight: Tensor, *, iterations: int, exact: bool = True
) -> tuple[Tensor, Tensor]:
    """Minimise from the start `c`; a problem whose start overflows stays where it is.

    Args:
        problem: The residuals.
        c: The starts, of shape `num_operators batch`.
        weight: The L1 weights, of the same shape.
        iterations: The largest number of steps.
        exact: Whether to use the exact Hessian.

    Returns:
        The coefficients, and the objectives, of shape `batch`, infinite where not finite.
    """
    at = problem.derivatives(c, exact=exact)
    objective = _finite(at.value + (weight * c.abs()).sum(0))
    best_c, best = c.clone(), objective.clone()
    damping = _FIRST_DAMPING * at.gauss_newton.diagonal().amax(-1)
    floor = _FLOOR * weight.amax(0) + 1e-14
    rows = torch.arange(c.shape[1], device=c.device)
    live = torch.isfinite(objective)
    for _ in range(iterations):
        if int(live.sum()) < 0.75 * len(rows):
            best_c[:, rows], best[rows] = c, objective
            keep = live.nonzero()[:, 0]
            if not len(keep):
                return best_c, best
            rows, c, objective, weight = rows[keep], c[:, keep], objective[keep], weight[:, keep]
            at, damping, floor, problem = (
                at.take(keep),
                damping[keep],
                floor[keep],
                problem.take(keep),
            )
            live = live[keep]
        damping = torch.maximum(damping, floor)
        step, damping, expected = _step(c, at, damping, weight)
        new_c = torch.where(step == -c, torch.zeros_like(c), c + step)
        new = problem.derivatives(new_c, exact=exact)
        new_objective = _finite(new.value + (weight * new_c.abs()).sum(0))
        gain = objective - new_objective
        inside = new_c.abs().sum(0) < _LARGEST_NORM
        accept = (gain > 0) & inside & live
        ratio = gain / expected.abs().clamp_min(1e-300)
        converged = (expected < _TOLERANCE * objective) & (
            ~accept | (gain < _TOLERANCE * objective)
        )
        live = live & ~converged & (inside | (damping < 1e3 * floor)) & (damping < 1e12)
        damping = torch.where(
            accept & (ratio > 0.75),
            damping * 0.25,
            torch.where(accept & (ratio > 0.25), damping, damping * 4),
        )
        c, objective = torch.where(accept, new_c, c), torch.where(accept, new_objective, objective)
        at = new.where(accept, at)
    best_c[:, rows], best[rows] = c, objective
    return best_c, best


def _finite(objective: Tensor) -> Tensor:
    return torch.where(torch.isfinite(objective), objective, torch.inf)


def _step(
    c: Tensor, at: Derivatives, damping: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The step, the damping it was found with, and the decrease that the model foretells."""
    step, matrix = _orthant_step(c, at, damping, weight)
    length = step.abs().sum(0)
    long = length > _LONGEST_STEP
    if bool(long.any()):
        # In a null direction the step is inverse to the damping, so this shortens it to one while
        # the directions that the residual determines keep their Newton step.
        damping = torch.where(long, damping * length / _LONGEST_STEP, damping)
        step, matrix = _orthant_step(c, at, damping, weight)
        length = step.abs().sum(0).clamp_min(1e-300)
        step = step * (2 * _LONGEST_STEP / length).clamp_max(1.0)
    expected = -(
        (at.gradient * step).sum(0)
        + 0.5 * ((matrix * step).sum(1) * step).sum(0)
        + (weight * ((c + step).abs() - c.abs())).sum(0)
    )
    return step, damping, expected


def _orthant_step(
    c: Tensor, at: Derivatives, damping: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    zero = c == 0
    sign = torch.where(zero, -at.gradient.sign(), c.sign())
    free = ~zero | (at.gradient.abs() > weight)
    slope = at.gradient + weight * sign
    eye = torch.eye(c.shape[0], dtype=c.dtype, device=c.device)[:, :, None]
    matrix = at.hessian + damping * eye
    fixed = torch.zeros_like(c)
    step, smallest = _solve(matrix, slope, free, fixed, eye)
    indefinite = ~(smallest > 1e-6 * damping)
    if bool(indefinite.any()):
        matrix = torch.where(indefinite, at.gauss_newton + damping * eye, matrix)
        step, _ = _solve(matrix, slope, free, fixed, eye)
    for _ in range(c.shape[0]):
        crosses = free & (torch.where(zero, step, c + step) * sign < 0)
        if not bool(crosses.any()):
            return step, matrix
        fixed, free = torch.where(crosses, -c, fixed), free & ~crosses
        step, _ = _solve(matrix, slope, free, fixed, eye)
    return step, matrix


def _solve(
    matrix: Tensor, slope: Tensor, free: Tensor, fixed: Tensor, eye: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve for the free coefficients with the others at `fixed`; also the smallest pivot.

    Gauss-Jordan elimination without exchange of rows is stable for a positive definite matrix,
    and for a few coefficients much quicker along the batch than one factorisation a problem.
    """
    mask = free.to(slope.dtype)
    right = -(slope + (matrix * fixed).sum(1)) * mask
    table = torch.cat([matrix * (mask[:, None] * mask) + eye * (1 - mask), right[:, None]], 1)
    pivots = []
    for k in range(len(slope)):
        pivot = table[k, k]
        pivots.append(pivot)
        column = table[:, k] - eye[:, k]
        table = table - column[:, None] * (table[k] / pivot)
    return torch.where(free, table[:, -1], fixed), torch.stack(pivots).amin(0)
