"""Proximal Newton for many small problems on a CPU, one after the other, compiled.

The algorithm is that of `newton`. There a batch goes on until its last problem is done, and pays
for each of many small operations; a compiled loop over the problems, each with a series of its
own length, takes a fraction of that time. It is split among as many threads as torch has.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pyro_latents.transport.compiled_residual import compiled, derivatives
from pyro_latents.transport.newton import FIRST_DAMPING, FLOOR, LARGEST_NORM, LONGEST_STEP

_WORTH_A_THREAD = 16


def minimise_each(
    psi: Tensor,
    start: Tensor,
    end: Tensor,
    c: Tensor,
    weight: Tensor,
    iterations: int,
    tolerance: float,
    exact: bool,
) -> tuple[Tensor, Tensor]:
    """Minimise on a CPU, from and to any device.

    The first three arguments are those of a `SeriesProblem`, the others and what is returned
    those of `newton.minimise`.
    """
    operators, *rows, found = (
        part.to("cpu", torch.float64).contiguous().numpy()
        for part in (psi, start.T, end.T, weight.T, c.T)
    )
    found, objective = found.copy(), np.empty(len(found))
    threads = max(1, min(torch.get_num_threads(), len(found) // _WORTH_A_THREAD))
    cuts = [len(found) * k // threads for k in range(threads + 1)]

    def solve(low: int, high: int) -> None:
        parts = (part[low:high] for part in (*rows, found, objective))
        _minimise_rows(operators, *parts, iterations, tolerance, exact)

    if threads == 1:
        solve(*cuts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(solve, cuts, cuts[1:]))
    return torch.from_numpy(found).T.to(c), torch.from_numpy(objective).to(c)


@compiled
def _minimise_rows(psi, start, end, weight, found, objective, iterations, tolerance, exact):
    for i in range(len(start)):
        objective[i] = _minimise_one(
            psi, start[i], end[i], weight[i], found[i], iterations, tolerance, exact
        )


@compiled
def _minimise_one(psi, start, end, weight, c, iterations, tolerance, exact):
    """Leave the coefficients in the place of their start `c`, and return the objective."""
    size = len(psi)
    at = np.empty(size), np.empty((size, size)), np.empty((size, size))
    new = np.empty(size), np.empty((size, size)), np.empty((size, size))
    step, new_c, matrix = np.empty(size), np.empty(size), np.empty((size, size))
    damping = floor = penalty = 0.0
    for m in range(size):
        penalty += weight[m] * abs(c[m])
        floor = max(floor, FLOOR * weight[m] + 1e-14)
    objective = penalty + derivatives(psi, start, end, c, exact, at)
    if not math.isfinite(objective):
        return math.inf
    for m in range(size):
        damping = max(damping, FIRST_DAMPING * at[1][m, m])
    for _ in range(iterations):
        damping = _step(c, at, max(damping, floor), weight, step, matrix)
        expected = length = penalty = 0.0
        for m in range(size):
            new_c[m] = 0.0 if step[m] == -c[m] else c[m] + step[m]
            length += abs(new_c[m])
            penalty += weight[m] * abs(new_c[m])
            expected -= at[0][m] * step[m] + weight[m] * (abs(c[m] + step[m]) - abs(c[m]))
            for n in range(size):
                expected -= 0.5 * matrix[m, n] * step[m] * step[n]
        new_objective = penalty + derivatives(psi, start, end, new_c, exact, new)
        inside = length < LARGEST_NORM
        gain = objective - new_objective
        accept = gain > 0 and inside  # not if it is NaN
        converged = max(expected, gain if accept else 0.0) < tolerance * objective
        ratio = gain / max(abs(expected), 1e-300)
        if accept and ratio > 0.75:
            damping *= 0.25
        elif not (accept and ratio > 0.25):
            damping *= 4
        if accept:
            objective = new_objective
            c[:] = new_c
            at, new = new, at
        if converged:
            # A zero coefficient whose slope beats the kink may be held back by the others in the
            # model; more damping sets it free.
            held_back = False
            for m in range(size):
                held_back |= c[m] == 0 and abs(at[0][m]) > 1.001 * weight[m]
            if not held_back:
                break
        if damping > 1e12 or (not inside and damping > 1e3 * floor):
            break
    return objective


@compiled
def _step(c, at, damping, weight, step, matrix):
    """Leave the step in `step` and its model in `matrix`; return the damping it was found with."""
    length = _orthant_step(c, at, damping, weight, step, matrix)
    if length > LONGEST_STEP:
        # In a null direction the step is inverse to the damping, so this shortens it to one while
        # the directions that the residual determines keep their Newton step.
        damping *= length / LONGEST_STEP
        length = _orthant_step(c, at, damping, weight, step, matrix)
        if length > 2 * LONGEST_STEP:
            step *= 2 * LONGEST_STEP / length
    return damping


@compiled
def _orthant_step(c, at, damping, weight, step, matrix):
    """Leave the step within the orthant, and its model; return the step's length."""
    gradient, gauss_newton, hessian = at
    size = len(c)
    sign, slope, fixed = np.empty(size), np.empty(size), np.zeros(size)
    free = np.empty(size, np.bool_)
    for m in range(size):
        sign[m] = np.sign(c[m]) if c[m] != 0 else -np.sign(gradient[m])
        free[m] = c[m] != 0 or abs(gradient[m]) > weight[m]
        slope[m] = gradient[m] + weight[m] * sign[m]
    _damp(hessian, damping, matrix)
    if not _solve(matrix, slope, free, fixed, step) > 1e-6 * damping:
        _damp(gauss_newton, damping, matrix)
        _solve(matrix, slope, free, fixed, step)
    for _ in range(size):
        crossed = False
        for m in range(size):
            reached = step[m] if c[m] == 0 else c[m] + step[m]
            if free[m] and reached * sign[m] < 0:
                free[m], fixed[m], crossed = False, -c[m], True
        if not crossed:
            break
        _solve(matrix, slope, free, fixed, step)
    length = 0.0
    for m in range(size):
        length += abs(step[m])
    return length


@compiled
def _damp(curvature, damping, matrix):
    for m in range(len(matrix)):
        for n in range(len(matrix)):
            matrix[m, n] = curvature[m, n] + (damping if m == n else 0.0)


@compiled
def _solve(matrix, slope, free, fixed, step):
    """Leave the solution for the free coefficients in `step`; return the smallest pivot."""
    size = len(slope)
    table, right = np.zeros((size, size)), np.zeros(size)
    for m in range(size):
        table[m, m] = 1.0
        if not free[m]:
            continue
        right[m] = -slope[m]
        for n in range(size):
            right[m] -= matrix[m, n] * fixed[n]
            if free[n]:
                table[m, n] = matrix[m, n]
    smallest = math.inf
    for k in range(size):
        smallest = min(smallest, table[k, k])
        for m in range(k + 1, size):
            factor = table[m, k] / table[k, k]
            right[m] -= factor * right[k]
            for n in range(k + 1, size):
                table[m, n] -= factor * table[k, n]
    for k in range(size - 1, -1, -1):
        for n in range(k + 1, size):
            right[k] -= table[k, n] * right[n]
        right[k] /= table[k, k]
        step[k] = right[k] if free[k] else fixed[k]
    return smallest
