r"""Coefficients of a single operator: a grid that all pairs share, then Newton's method.

With M = 1 the matrices :math:`T(c_g)` at the nodes of a grid are the same for every pair, and the
objective at all nodes is one product of matrices. From a node the path is a Taylor polynomial in
the distance from it, on which Newton's method, kept inside its bracket, costs next to nothing.
"""

import torch
from torch import Tensor

from pyro_latents.transport.nodes import objectives_at

_SPACING = 0.2
_TERMS = 12  # |distance| <= 0.2 and an operator of norm one: the rest is below 1e-18
_ITERATIONS = 8
_CANDIDATES = 2


def search_line(
    psi: Tensor, start: Tensor, end: Tensor, weight: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    """Minimise over `|c| <= radius` for one operator of norm one.

    The lowest minima of the whole grid are refined.

    Args:
        psi: The operator, of shape `z_dim z_dim`.
        start: The points to be moved, of shape `batch z_dim`.
        end: The points to be reached, of the same shape.
        weight: The L1 weights, of shape `batch`.
        radius: How far the grid reaches.

    Returns:
        The coefficients and the objectives, each of shape `batch`.
    """
    side = int(radius / _SPACING) + 1
    c = _SPACING * torch.arange(-side, side + 1, dtype=psi.dtype, device=psi.device)
    matrices = _powers(psi, side)
    objective = objectives_at(matrices, start, end) + weight[:, None] * c.abs()
    wall = torch.full_like(objective[:, :1], torch.inf)
    right = torch.cat([objective[:, 1:], wall], 1)
    left = torch.cat([wall, objective[:, :-1]], 1)
    lowest = torch.where((objective <= right) & (objective <= left), objective, torch.inf)
    nodes = lowest.topk(_CANDIDATES, 1, largest=False).indices
    rows = torch.arange(len(start), device=psi.device).repeat_interleave(nodes.shape[1])
    flat = nodes.reshape(-1)
    near = (matrices[flat] @ start[rows, :, None])[:, :, 0]
    found, value = _refine(psi, near, end[rows], weight[rows], c[flat])
    value, which = value.view(nodes.shape).min(1)
    return found.view(nodes.shape).gather(1, which[:, None])[:, 0], value


def _powers(psi: Tensor, side: int) -> Tensor:
    """`expm(c psi)` at all nodes, by doubling the range of the grid."""
    halves = []
    for sign in (-1.0, 1.0):
        step = torch.linalg.matrix_exp(sign * _SPACING * psi)
        stack = torch.eye(len(psi), dtype=psi.dtype, device=psi.device)[None]
        while len(stack) <= side:
            stack = torch.cat([stack, stack @ step])
            step = step @ step
        halves.append(stack[: side + 1])
    return torch.cat([halves[0].flip(0), halves[1][1:]])


def _refine(
    psi: Tensor, near: Tensor, end: Tensor, weight: Tensor, node: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton's method around the nodes; `near` are the starts moved to them."""
    table = _taylor(psi, near)
    z_dim = near.shape[1]
    first_slope = ((near - end) * table[:, 1, :z_dim]).sum(1)
    zero = node == 0
    sign = torch.where(zero, -first_slope.sign(), node.sign())
    # The kink at zero is a node, and the bracket never reaches across it.
    stays = zero & (first_slope.abs() <= weight)
    low = torch.where(stays | (zero & (sign > 0)), 0.0, -_SPACING).to(node.dtype)
    high = torch.where(stays | (zero & (sign < 0)), 0.0, _SPACING).to(node.dtype)
    shift = torch.zeros_like(node)
    for _ in range(_ITERATIONS):
        y, dy, ddy = (_evaluate(table, shift).view(-1, 3, z_dim)).unbind(1)
        residual = y - end
        slope = (residual * dy).sum(1) + weight * sign
        curvature = (dy * dy).sum(1) + (residual * ddy).sum(1)
        low = torch.where(slope < 0, shift, low)
        high = torch.where(slope > 0, shift, high)
        newton = shift - slope / curvature
        good = (curvature > 0) & (newton >= low) & (newton <= high)
        shift = torch.where(good, newton, (low + high) / 2)
    value = 0.5 * (_evaluate(table, shift)[:, :z_dim] - end).square().sum(1)
    objective = value + weight * (node + shift).abs()
    return node + shift, torch.where(torch.isfinite(objective), objective, torch.inf)


def _taylor(psi: Tensor, near: Tensor) -> Tensor:
    """Coefficients of `expm(t psi) near` and its two derivatives: `batch terms 3*z_dim`."""
    terms = [near]
    for k in range(1, _TERMS + 1):
        terms.append(terms[-1] @ psi.T / k)
    series = torch.stack(terms, 1)
    order = torch.arange(1, _TERMS + 1, dtype=psi.dtype, device=psi.device)[:, None]
    first = torch.cat([series[:, 1:] * order, torch.zeros_like(series[:, :1])], 1)
    second = torch.cat([first[:, 1:] * order, torch.zeros_like(series[:, :1])], 1)
    return torch.cat([series, first, second], 2)


def _evaluate(table: Tensor, shift: Tensor) -> Tensor:
    base = shift[:, None].expand(-1, table.shape[1]).clone()
    base[:, 0] = 1.0
    return torch.bmm(base.cumprod(1)[:, None], table)[:, 0]
