r"""The transport residual in two dimensions, in closed form.

A 2 x 2 matrix is :math:`A = sI + N` with N free of trace, and :math:`N^2 = qI`, so that

.. math:: e^A x = e^s (C(q) x + S(q) N x), \qquad C = \cosh \sqrt q, \quad
          S = \frac{\sinh \sqrt q}{\sqrt q},

with the cosine and sine for negative q. C and S are entire functions of q, with
:math:`C' = S/2`, :math:`S' = (C - S) / 2q` and :math:`S'' = (S/2 - 3 S') / 2q`, and s, N and q are
polynomials in the coefficients: all derivatives follow by the chain rule.

`series` would do in its place. On the problems of a batch of two circles (four operators, learned
ones; `benchmarks/coefficient_inference.py`) this one takes 4.4 ms where the series takes 12.9, and
46 where it takes 101 if the search is wide, at the same objectives; batched, 99 and 191, and 80
and 469 ms. On random operators it is three to five times as fast.
"""

import torch
from torch import Tensor

from pyro_latents.transport.derivatives import Derivatives

# Below this |q| the quotients lose digits and the power series in q is used.
_SMALL = 1e-2


class PlanarProblem:
    """Residuals `end - expm(sum_m c_m psi_m) start` of `batch` problems in two dimensions.

    Args:
        psi: The operators, of shape `num_operators 2 2`.
        start: The points to be moved, of shape `2 batch`.
        end: The points to be reached, of shape `2 batch`.
    """

    def __init__(self, psi: Tensor, start: Tensor, end: Tensor) -> None:
        a, b, c, d = psi[:, 0, 0], psi[:, 0, 1], psi[:, 1, 0], psi[:, 1, 1]
        p = (a - d) / 2
        self.psi, self.start, self.end = psi, start, end
        self._parts = torch.stack([(a + d) / 2, p, b, c])
        self._q_curvature = 2 * torch.outer(p, p) + torch.outer(b, c) + torch.outer(c, b)
        self._moved = torch.stack(
            [
                p[:, None] * start[0] + b[:, None] * start[1],
                c[:, None] * start[0] - p[:, None] * start[1],
            ]
        )

    def take(self, index: Tensor) -> "PlanarProblem":
        """The problems of the columns `index`."""
        return PlanarProblem(self.psi, self.start[:, index], self.end[:, index])

    def derivatives(self, c: Tensor, *, exact: bool = True) -> Derivatives:
        """Value and derivatives at the coefficients `c`, of shape `num_operators batch`.

        The closed form is exact whatever `exact` asks for.
        """
        trace_m, p_m, upper_m, lower_m = self._parts[:, :, None]
        half_trace, p, upper, lower = self._parts @ c
        q = p * p + upper * lower
        cosine, sine, sine1, sine2 = (half_trace.exp() * f for f in _functions(q))
        x, nx = self.start, (self._moved * c).sum(1)
        y = cosine * x + sine * nx
        residual = y - self.end
        q_m = p_m * (2 * p) + upper_m * lower + lower_m * upper
        # The derivative of y without that of the factor e^s, then with it.
        inner = q_m * (sine / 2 * x + sine1 * nx)[:, None] + sine * self._moved
        jacobian = trace_m * y[:, None] + inner
        r = residual[:, None]
        gauss_newton = (jacobian[:, :, None] * jacobian[:, None]).sum(0)
        r_x, r_nx, r_y = (residual * torch.stack([x, nx, y])).sum(1)
        mixed = sine1 * (r * self._moved).sum(0) + (sine1 / 4 * r_x + sine2 / 2 * r_nx) * q_m
        half = trace_m[:, None] * (r * inner).sum(0) + q_m[:, None] * mixed
        outer = self._q_curvature[:, :, None] * (sine / 2 * r_x + sine1 * r_nx)
        trace_outer = (self._parts[0][:, None] * self._parts[0])[:, :, None] * r_y
        return Derivatives(
            0.5 * residual.square().sum(0),
            (r * jacobian).sum(0),
            gauss_newton,
            gauss_newton + half + half.transpose(0, 1) + outer + trace_outer,
        )


def _functions(q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C(q), S(q), S'(q) and S''(q)."""
    small = q.abs() < _SMALL
    safe = torch.where(small, torch.ones_like(q), q)
    root, growing = safe.abs().sqrt(), safe > 0
    cosine = torch.where(growing, root.cosh(), root.cos())
    sine = torch.where(growing, root.sinh(), root.sin()) / root
    sine1 = (cosine - sine) / (2 * safe)
    sine2 = (sine / 2 - 3 * sine1) / (2 * safe)
    if not bool(small.any()):
        return cosine, sine, sine1, sine2
    t = torch.where(small, q, torch.zeros_like(q))
    series = (
        1 + t * (1 / 2 + t * (1 / 24 + t * (1 / 720 + t * (1 / 40320 + t / 3628800)))),
        1 + t * (1 / 6 + t * (1 / 120 + t * (1 / 5040 + t * (1 / 362880 + t / 39916800)))),
        1 / 6 + t * (1 / 60 + t * (1 / 1680 + t * (1 / 90720 + t / 7983360))),
        1 / 60 + t * (1 / 840 + t * (1 / 30240 + t / 1995840)),
    )
    exact = (cosine, sine, sine1, sine2)
    cosine, sine, sine1, sine2 = (
        torch.where(small, s, e) for s, e in zip(series, exact, strict=True)
    )
    return cosine, sine, sine1, sine2
