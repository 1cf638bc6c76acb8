r"""The transport residual of one problem and its derivatives, compiled for a CPU.

The formulas are those of `series`, which is for many problems at once. In the plane there is a
closed form: a 2 x 2 matrix is :math:`A = sI + N` with N free of trace, and :math:`N^2 = qI`, so

.. math:: e^A x = e^s (C(q) x + S(q) N x), \qquad C = \cosh \sqrt q, \quad
          S = \frac{\sinh \sqrt q}{\sqrt q},

with the cosine and sine for negative q. C and S are entire functions of q, with
:math:`C' = S/2`, :math:`S' = (C - S) / 2q` and :math:`S'' = (S/2 - 3 S') / 2q`, and s, N and q are
polynomials in the coefficients: all derivatives follow by the chain rule.

The series would do in its place. On the problems of a batch of two circles (four operators,
learned ones; `benchmarks/coefficient_inference.py`, three seeds) the closed form takes 5.6 ms
where the series takes 17.6, and 48 where it takes 109 if the search is wide, at the same
objectives; on other operators it is two to six times as fast.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from pyro_latents.transport.series import HOPELESS_NORM, LARGEST_NORM

_MOST_TERMS = 64
_INVERSE = np.array([1 / math.factorial(k) for k in range(2 * _MOST_TERMS)])
# Below this |q| the quotients lose digits and the power series in q is used.
_SMALL = 1e-2


def compiled(function: Callable) -> Callable:
    """Compile a function of numbers and arrays, and keep the result where there is a place."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",  # a division by zero is infinite, not an error
        "fastmath": {"contract", "reassoc", "arcp", "nsz"},  # but not-a-number stays what it is
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to write to
        return numba.njit(**options)(function)


@compiled
def derivatives(psi, start, end, c, exact, at):
    """Leave the derivatives in `at` and return the value.

    Args:
        psi: The operators, of shape `num_operators z_dim z_dim`.
        start: The point to be moved, of shape `z_dim`.
        end: The point to be reached, of shape `z_dim`.
        c: The coefficients, of shape `num_operators`.
        exact: Whether the Hessian is exact and the series is summed to rounding.
        at: The gradient, of shape `num_operators`, then the Gauss-Newton matrix and the Hessian,
            of shape `num_operators num_operators`.

    Returns:
        Half the squared residual, infinite where the exponential is hopelessly large.
    """
    size, d = len(psi), len(start)
    if d == 2:
        return _in_plane(psi, start, end, c, at)
    gradient, gauss_newton, hessian = at
    a = np.zeros((d, d))
    for m in range(size):
        for i in range(d):
            for j in range(d):
                a[i, j] += c[m] * psi[m, i, j]
    norm = _growth(a)
    if not norm < HOPELESS_NORM:
        return math.inf
    parts = max(1, math.ceil(norm / LARGEST_NORM))
    a /= parts
    order = _order(norm / parts, 1e-13 if exact else 1e-6)
    # Of each part and power: the moved point, then its derivatives.
    v = np.empty((parts, order + 1, 1 + size, d))
    state = np.zeros((1 + size, d))
    state[0] = start
    for part in range(parts):
        v[part, 0] = state
        for k in range(1, order + 1):
            before, after, inverse = v[part, k - 1], v[part, k], _INVERSE[k]
            for s in range(1 + size):
                for i in range(d):
                    total = 0.0
                    for j in range(d):
                        total += a[i, j] * before[s, j]
                    if s > 0:
                        moved = 0.0
                        for j in range(d):
                            moved += psi[s - 1, i, j] * before[0, j]
                        total += moved / parts
                    after[s, i] = total
                    state[s, i] += inverse * total
    residual = state[0] - end
    value = 0.5 * (residual * residual).sum()
    for m in range(size):
        gradient[m] = 0.0
        for i in range(d):
            gradient[m] += state[1 + m, i] * residual[i]
        for n in range(size):
            total = 0.0
            for i in range(d):
                total += state[1 + m, i] * state[1 + n, i]
            gauss_newton[m, n] = hessian[m, n] = total
    if exact:
        _add_curvature(psi, a, v, residual, hessian)
    return value


@compiled
def _add_curvature(psi, a, v, back, hessian):
    parts, terms, d = v.shape[0], v.shape[1], v.shape[3]
    size = len(psi)
    w, mixed, half = np.empty((terms, d)), np.empty(d), np.zeros((size, size))
    for part in range(parts - 1, -1, -1):
        w[0] = back
        for k in range(1, terms):
            for j in range(d):
                total = 0.0
                for i in range(d):
                    total += a[i, j] * w[k - 1, i]
                w[k, j] = total
                back[j] += _INVERSE[k] * total
        for k in range(terms - 1):
            # Beyond, the inverse factorials are of what the series leaves out.
            mixed[:] = 0.0
            for j in range(terms - k):
                for i in range(d):
                    mixed[i] += _INVERSE[j + k + 1] * w[j, i]
            power = v[part, k]
            for m in range(size):
                for j in range(d):
                    moved = 0.0
                    for i in range(d):
                        moved += psi[m, i, j] * mixed[i]
                    moved /= parts
                    for n in range(size):
                        half[m, n] += moved * power[1 + n, j]
    for m in range(size):
        for n in range(size):
            hessian[m, n] += half[m, n] + half[n, m]


@compiled
def _growth(a):
    """As `series._growth`: the fourth root of a norm of the fourth power."""
    square = _product(a, a)
    fourth = np.abs(_product(square, square))
    return min(fourth.sum(0).max(), fourth.sum(1).max()) ** 0.25


@compiled
def _product(a, b):
    d = len(a)
    out = np.zeros((d, d))
    for i in range(d):
        for k in range(d):
            for j in range(d):
                out[i, j] += a[i, k] * b[k, j]
    return out


@compiled
def _order(norm, tolerance):
    order, term = 2, norm * norm / 2
    while term > tolerance and order < _MOST_TERMS - 1:
        order += 1
        term *= norm / order
    return order


@compiled
def _in_plane(psi, start, end, c, at):
    """As `derivatives`, in closed form."""
    gradient, gauss_newton, hessian = at
    size, x, z = len(psi), start[0], start[1]
    trace, p, b, g = 0.0, 0.0, 0.0, 0.0
    for m in range(size):
        trace += c[m] * (psi[m, 0, 0] + psi[m, 1, 1]) / 2
        p += c[m] * (psi[m, 0, 0] - psi[m, 1, 1]) / 2
        b += c[m] * psi[m, 0, 1]
        g += c[m] * psi[m, 1, 0]
    q = p * p + b * g
    if not (trace < HOPELESS_NORM and q < HOPELESS_NORM**2):
        return math.inf
    growth = math.exp(trace)
    cosine, sine, sine1, sine2 = _functions(q)
    cosine, sine, sine1, sine2 = growth * cosine, growth * sine, growth * sine1, growth * sine2
    nx, nz = p * x + b * z, g * x - p * z
    y0, y1 = cosine * x + sine * nx, cosine * z + sine * nz
    r0, r1 = y0 - end[0], y1 - end[1]
    r_x, r_nx, r_y = r0 * x + r1 * z, r0 * nx + r1 * nz, r0 * y0 + r1 * y1
    t_m, q_m, r_inner, mixed = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    j0, j1 = np.empty(size), np.empty(size)
    for m in range(size):
        t_m[m] = (psi[m, 0, 0] + psi[m, 1, 1]) / 2
        p_m = (psi[m, 0, 0] - psi[m, 1, 1]) / 2
        b_m, g_m = psi[m, 0, 1], psi[m, 1, 0]
        q_m[m] = 2 * p * p_m + b_m * g + g_m * b
        moved0, moved1 = p_m * x + b_m * z, g_m * x - p_m * z
        inner0 = q_m[m] * (sine / 2 * x + sine1 * nx) + sine * moved0
        inner1 = q_m[m] * (sine / 2 * z + sine1 * nz) + sine * moved1
        j0[m], j1[m] = t_m[m] * y0 + inner0, t_m[m] * y1 + inner1
        gradient[m] = r0 * j0[m] + r1 * j1[m]
        r_inner[m] = r0 * inner0 + r1 * inner1
        mixed[m] = (
            sine1 * (r0 * moved0 + r1 * moved1) + (sine1 / 4 * r_x + sine2 / 2 * r_nx) * q_m[m]
        )
    for m in range(size):
        for n in range(size):
            gauss_newton[m, n] = j0[m] * j0[n] + j1[m] * j1[n]
            p_mn = (psi[m, 0, 0] - psi[m, 1, 1]) * (psi[n, 0, 0] - psi[n, 1, 1]) / 2
            q_mn = p_mn + psi[m, 0, 1] * psi[n, 1, 0] + psi[m, 1, 0] * psi[n, 0, 1]
            hessian[m, n] = (
                gauss_newton[m, n]
                + t_m[m] * r_inner[n]
                + t_m[n] * r_inner[m]
                + q_m[m] * mixed[n]
                + q_m[n] * mixed[m]
                + q_mn * (sine / 2 * r_x + sine1 * r_nx)
                + t_m[m] * t_m[n] * r_y
            )
    return 0.5 * (r0 * r0 + r1 * r1)


@compiled
def _functions(q):
    """C(q), S(q), S'(q) and S''(q)."""
    if abs(q) < _SMALL:
        return (
            1 + q * (1 / 2 + q * (1 / 24 + q * (1 / 720 + q * (1 / 40320 + q / 3628800)))),
            1 + q * (1 / 6 + q * (1 / 120 + q * (1 / 5040 + q * (1 / 362880 + q / 39916800)))),
            1 / 6 + q * (1 / 60 + q * (1 / 1680 + q * (1 / 90720 + q / 7983360))),
            1 / 60 + q * (1 / 840 + q * (1 / 30240 + q / 1995840)),
        )
    root = math.sqrt(abs(q))
    if q > 0:
        cosine, sine = math.cosh(root), math.sinh(root)
    else:
        cosine, sine = math.cos(root), math.sin(root)
    sine /= root
    sine1 = (cosine - sine) / (2 * q)
    return cosine, sine, sine1, (sine / 2 - 3 * sine1) / (2 * q)
