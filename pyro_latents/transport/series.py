r"""The transport residual in any dimension, by Taylor series on vectors.

For :math:`E(c) = \tfrac12 \|x_1 - e^{A} x_0\|^2` with :math:`A = \sum_m c_m \Psi_m` this gives the
value, the gradient, the Gauss-Newton matrix and the exact Hessian of many problems at once. No
exponential of a matrix is formed, and no eigendecomposition, which would fail for a defective A.

With :math:`V_k = A^k x_0`, :math:`J_{m,k} = \partial V_k / \partial c_m` and
:math:`W_j = (A^\top)^j r` the sums are

.. math::
    e^A x_0 = \sum_k \frac{V_k}{k!}, \qquad
    \partial_m e^A x_0 = \sum_k \frac{J_{m,k}}{k!}, \qquad
    r^\top \partial_m \partial_n e^A x_0
        = \sum_{j,k} \frac{W_j^\top (\Psi_m J_{n,k} + \Psi_n J_{m,k})}{(j + k + 1)!}.

The batch is the last dimension of every tensor, so that each operation runs along it.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

# One series serves a norm of up to 7: beyond it the terms grow so large before they fall that
# cancellation would cost more than six of the sixteen digits, and A is split into equal parts.
LARGEST_NORM = 7.0
_SMALL_NORM = 3.0
# A matrix whose norm is not finite, or beyond this, is treated as one of this norm: its value
# overflows or is far too large, and the step that led there is rejected.
HOPELESS_NORM = 120.0
# Below this many columns the number of operations, and not their size, sets the time.
_WORTH_GROUPING = 48
_WORTH_ACCUMULATING = 768


class Derivatives(NamedTuple):
    """Half squared residuals and their derivatives, the batch in the last dimension.

    Attributes:
        value: `0.5 * |residual|^2`, of shape `batch`.
        gradient: Of shape `num_operators batch`.
        gauss_newton: `J^T J`, of shape `num_operators num_operators batch`.
        hessian: Of the same shape; the Gauss-Newton matrix itself where it is not exact.
    """

    value: Tensor
    gradient: Tensor
    gauss_newton: Tensor
    hessian: Tensor

    def take(self, index: Tensor) -> Derivatives:
        """The columns `index`."""
        return Derivatives(*(part[..., index] for part in self))

    def where(self, chosen: Tensor, other: Derivatives) -> Derivatives:
        """These columns where `chosen`, those of `other` elsewhere."""
        pairs = zip(self, other, strict=True)
        return Derivatives(*(torch.where(chosen, mine, theirs) for mine, theirs in pairs))


class SeriesProblem:
    """Residuals `end - expm(sum_m c_m psi_m) start` of `batch` problems in any dimension.

    Args:
        psi: The operators, of shape `num_operators z_dim z_dim`.
        start: The points to be moved, of shape `z_dim batch`.
        end: The points to be reached, of shape `z_dim batch`.
    """

    def __init__(self, psi: Tensor, start: Tensor, end: Tensor) -> None:
        num_operators, z_dim, _ = psi.shape
        self.psi, self.start, self.end = psi, start, end
        self._forward = psi.reshape(num_operators * z_dim, z_dim)
        self._backward = psi.mT.reshape(num_operators * z_dim, z_dim)

    def take(self, index: Tensor) -> SeriesProblem:
        """The problems of the columns `index`."""
        return SeriesProblem(self.psi, self.start[:, index], self.end[:, index])

    def derivatives(self, c: Tensor, *, exact: bool = True) -> Derivatives:
        """Value and derivatives at the coefficients `c`, of shape `num_operators batch`.

        Args:
            c: The coefficients.
            exact: Whether the Hessian is exact and the series is summed to rounding. If not, the
                Hessian is the Gauss-Newton matrix, and the sums have about six digits.
        """
        z_dim = self.start.shape[0]
        a = (self.psi.flatten(1).T @ c).view(z_dim, z_dim, -1)
        groups = _group(_growth(a))
        if len(groups) == 1:
            return self._block(a, self.start, self.end, groups[0][1], exact)
        parts = [
            self._block(a[:, :, i], self.start[:, i], self.end[:, i], bound, exact)
            for i, bound in groups
        ]
        back = torch.cat([i for i, _ in groups]).argsort()
        return Derivatives(*(torch.cat(each, -1)[..., back] for each in zip(*parts, strict=True)))

    def _block(
        self, a: Tensor, start: Tensor, end: Tensor, norm: float, exact: bool
    ) -> Derivatives:
        num_operators, z_dim, _ = self.psi.shape
        size = a.shape[-1]
        parts = max(1, math.ceil(norm / LARGEST_NORM - 1e-9))
        a, forward = a / parts, self._forward / parts
        order = _order(norm / parts, 1e-13 if exact else 1e-6)
        inverse, beta = _weights(order, a.dtype, a.device)
        state = torch.cat([start[None], start.new_zeros(num_operators, z_dim, size)])
        pieces = []
        for _ in range(parts):
            v = a.new_empty(order + 1, 1 + num_operators, z_dim, size)
            v[0] = state
            for k in range(order):
                _apply(a, v[k], v[k + 1])
                v[k + 1, 1:].view(-1, size).addmm_(forward, v[k, 0])
            state = (inverse @ v.view(order + 1, -1)).view_as(state)
            pieces.append(v)
        residual, jacobian = state[0] - end, state[1:]
        value = 0.5 * residual.square().sum(0)
        gradient = (jacobian * residual).sum(1)
        gauss_newton = (jacobian[:, None] * jacobian).sum(2)
        if not exact:
            return Derivatives(value, gradient, gauss_newton, gauss_newton)
        curvature = torch.zeros_like(gauss_newton)
        back = residual
        for v in reversed(pieces):
            w = [back]
            for _ in range(order):
                w.append((a * w[-1][:, None]).sum(0))
            stacked = torch.stack(w)
            back = (inverse @ stacked.view(order + 1, -1)).view_as(residual)
            mixed = (beta @ stacked.view(order + 1, -1)).view_as(stacked)
            z = (self._backward / parts @ mixed).view(order + 1, num_operators, 1, z_dim, size)
            for m in range(num_operators):
                curvature[m] += (z[:, m] * v[:, 1:]).sum((0, 2))
        hessian = gauss_newton + curvature + curvature.transpose(0, 1)
        return Derivatives(value, gradient, gauss_newton, hessian)


def _apply(a: Tensor, v: Tensor, out: Tensor) -> None:
    """`out[s, i] = sum_j a[i, j] v[s, j]`, column by column of the batch."""
    if a.shape[-1] < _WORTH_ACCUMULATING:
        torch.sum(a * v[:, None], 2, out=out)
        return
    torch.mul(a[:, 0], v[:, 0, None], out=out)
    for j in range(1, a.shape[0]):
        out.addcmul_(a[:, j], v[:, j, None])


def _growth(a: Tensor) -> Tensor:
    """How fast the powers of each matrix grow: the fourth root of a norm of its fourth power.

    The norm of A itself is often twice that, and the series would be made too long.
    """
    square = (a[:, :, None] * a[None]).sum(1)
    fourth = (square[:, :, None] * square[None]).sum(1).abs()
    return torch.minimum(fourth.sum(0).amax(0), fourth.sum(1).amax(0)) ** 0.25


def _group(norm: Tensor) -> list[tuple[Tensor, float]]:
    """Columns of similar norm, so that a few large ones do not lengthen the series of all."""
    norm = norm.nan_to_num(HOPELESS_NORM).clamp_max(HOPELESS_NORM)
    largest = float(norm.amax()) if norm.numel() else 0.0
    if norm.numel() < _WORTH_GROUPING or largest <= _SMALL_NORM:
        return [(torch.arange(norm.numel(), device=norm.device), largest)]
    edges = [-1.0, _SMALL_NORM, LARGEST_NORM]
    while edges[-1] < largest:
        edges.append(2 * edges[-1])
    groups = [
        (((norm > low) & (norm <= high)).nonzero()[:, 0], min(high, largest))
        for low, high in itertools.pairwise(edges)
    ]
    return [group for group in groups if len(group[0])]


def _order(norm: float, tolerance: float) -> int:
    order, term = 2, norm * norm / 2
    while term > tolerance:
        order += 1
        term *= norm / order
    return order


@functools.lru_cache(maxsize=256)
def _weights(order: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """`1 / k!`, and `1 / (j + k + 1)!` as a square table."""
    inverse = torch.tensor([1 / math.factorial(k) for k in range(2 * order + 2)], dtype=dtype)
    rows = torch.arange(order + 1)
    return inverse[: order + 1].to(device), inverse[rows[:, None] + rows + 1].to(device)
