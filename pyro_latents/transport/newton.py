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

On a CPU `compiled_newton` does the same for one problem after the other.

The operators are expected to have norm one, so that a unit of c is about a radian.
"""

import torch
from torch import Tensor

from pyro_latents.transport.series import Derivatives, SeriesProblem

FIRST_DAMPING = 1e-2  # relative to the largest diagonal element of J^T J
FLOOR = 0.3  # damping is at least this times lambda: a null direction then moves by 1/0.3
LONGEST_STEP = 1.0
LARGEST_NORM = 250.0


def minimise(
    problem: SeriesProblem,
    c: Tensor,
    weight: Tensor,
    iterations: int,
    tolerance: float,
    exact: bool,
) -> tuple[Tensor, Tensor]:
    """Minimise from the start `c`; a problem whose start overflows stays where it is.

    Args:
        problem: The residuals.
        c: The starts, of shape `num_operators batch`.
        weight: The L1 weights, of the same shape.
        iterations: The largest number of steps.
        tolerance: The relative decrease of the objective below which a problem is done.
        exact: Whether to use the exact Hessian.

    Returns:
        The coefficients, and the objectives, of shape `batch`, infinite where not finite.
    """
    at = problem.derivatives(c, exact=exact)
    objective = _finite(at.value + (weight * c.abs()).sum(0))
    best_c, best = c.clone(), objective.clone()
    damping = FIRST_DAMPING * at.gauss_newton.diagonal().amax(-1)
    floor = FLOOR * weight.amax(0) + 1e-14
    rows = torch.arange(c.shape[1], device=c.device)
    live = torch.isfinite(objective)
    for _ in range(iterations):
        if int(live.sum()) < 0.75 * len(rows):
            best_c[:, rows], best[rows] = c, objective
            keep = live.nonzero()[:, 0]
            if not len(keep):
                return best_c, best
            rows, c, objective, weight = rows[keep], c[:, keep], objective[keep], weight[:, keep]
            at, problem = at.take(keep), problem.take(keep)
            damping, floor, live = damping[keep], floor[keep], live[keep]
        damping = torch.maximum(damping, floor)
        step, damping, expected = _step(c, at, damping, weight)
        new_c = torch.where(step == -c, torch.zeros_like(c), c + step)
        new = problem.derivatives(new_c, exact=exact)
        new_objective = _finite(new.value + (weight * new_c.abs()).sum(0))
        gain = objective - new_objective
        inside = new_c.abs().sum(0) < LARGEST_NORM
        accept = (gain > 0) & inside & live
        ratio = gain / expected.abs().clamp_min(1e-300)
        converged = torch.maximum(expected, accept * gain) < tolerance * objective
        damping = torch.where(
            accept & (ratio > 0.75),
            damping * 0.25,
            torch.where(accept & (ratio > 0.25), damping, damping * 4),
        )
        c, objective = torch.where(accept, new_c, c), torch.where(accept, new_objective, objective)
        at = new.where(accept, at)
        # A zero coefficient whose slope beats the kink may be held back by the others in the
        # model; more damping sets it free.
        held_back = ((c == 0) & (at.gradient.abs() > 1.001 * weight)).any(0)
        live = live & (~converged | held_back)
        live = live & (inside | (damping < 1e3 * floor)) & (damping < 1e12)
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
    long = (length > LONGEST_STEP).nonzero()[:, 0]
    if len(long):
        # In a null direction the step is inverse to the damping, so this shortens it to one while
        # the directions that the residual determines keep their Newton step.
        damping = damping.index_put((long,), damping[long] * length[long] / LONGEST_STEP)
        step[:, long], matrix[:, :, long] = _orthant_step(
            c[:, long], at.take(long), damping[long], weight[:, long]
        )
        length = step.abs().sum(0).clamp_min(1e-300)
        step = step * (2 * LONGEST_STEP / length).clamp_max(1.0)
    expected = -(
        (at.gradient * step).sum(0)
        + 0.5 * ((matrix * step).sum(1) * step).sum(0)
        + (weight * ((c + step).abs() - c.abs())).sum(0)
    )
    return step, damping, expected


def _orthant_step(
    c: Tensor, at: Derivatives, damping: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The best step within the orthant, and the matrix of the model it is best for."""
    zero = c == 0
    sign = torch.where(zero, -at.gradient.sign(), c.sign())
    free = ~zero | (at.gradient.abs() > weight)
    slope = at.gradient + weight * sign
    eye = torch.eye(c.shape[0], dtype=c.dtype, device=c.device)[:, :, None]
    matrix = at.hessian + damping * eye
    fixed = torch.zeros_like(c)
    step, smallest = _solve(matrix, slope, free, fixed, eye)
    indefinite = (~(smallest > 1e-6 * damping)).nonzero()[:, 0]
    if len(indefinite):
        i = indefinite
        matrix[:, :, i] = at.gauss_newton[:, :, i] + damping[i] * eye
        step[:, i] = _solve(matrix[:, :, i], slope[:, i], free[:, i], fixed[:, i], eye)[0]
    for _ in range(len(c)):
        crosses = free & (torch.where(zero, step, c + step) * sign < 0)
        i = crosses.any(0).nonzero()[:, 0]
        if not len(i):
            break
        fixed, free = torch.where(crosses, -c, fixed), free & ~crosses
        step[:, i] = _solve(matrix[:, :, i], slope[:, i], free[:, i], fixed[:, i], eye)[0]
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
    size = len(slope)
    smallest = torch.full_like(slope[0], torch.inf)
    for k in range(size):
        smallest = torch.minimum(smallest, table[k, k])
        # The columns before k are done with.
        row = table[k, k + 1 :] / table[k, k]
        column = table[:, k] - eye[:, k]
        table[:, k + 1 :].addcmul_(column[:, None], row, value=-1)
    return torch.where(free, table[:, size], fixed), smallest
