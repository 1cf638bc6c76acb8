"""The objective of every pair at coefficients that all pairs share.

A matrix `expm(A)` at shared coefficients is formed once, and a pair's half squared residual is
linear in it and in its Gram matrix: all pairs times all nodes are one product of matrices. That
makes it cheap to look at thousands of places before descending from the best few.
"""

import functools
import math

import torch
from torch import Tensor

_MOST_SIGNS = 4  # operators whose signs make a pattern: sixteen patterns


def objectives_at(matrices: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """`0.5 |end_b - T_g start_b|^2`, of shape `batch nodes`, infinite where it overflows.

    Args:
        matrices: The T, of shape `nodes z_dim z_dim`.
        start: The points to be moved, of shape `batch z_dim`.
        end: The points to be reached, of the same shape.
    """
    along = matrices.permute(1, 2, 0)
    gram = _product(along.transpose(0, 1), along)
    outer = [(left[:, :, None] * start[:, None]).flatten(1) for left in (start, end)]
    pairs = torch.cat([0.5 * outer[0], -outer[1]], 1)
    value = pairs @ torch.cat([gram, along]).flatten(0, 1)
    value = value + 0.5 * end.square().sum(1, keepdim=True)
    return torch.where(torch.isfinite(value), value, torch.inf)


def exponentials(psi: Tensor, c: Tensor) -> Tensor:
    """`expm(sum_m c_m psi_m)` to about three digits, which is enough to put nodes in order.

    The nodes are the last dimension while the matrices are multiplied, so that each operation
    runs along them: for thousands of small matrices that takes a tenth of the time of
    ``torch.linalg.matrix_exp``. A Taylor polynomial of degree six is squared as often as the
    largest needs. Operators `num_operators z_dim z_dim` and coefficients `nodes num_operators`
    give `nodes z_dim z_dim`.
    """
    a = (psi.flatten(1).T @ c.T).unflatten(0, psi.shape[1:])
    norm = float(a.square().sum((0, 1)).amax().sqrt())
    halvings = max(0, math.ceil(math.log2(norm))) if 0 < norm < math.inf else 0
    a = a / 2**halvings
    eye = torch.eye(len(a), dtype=a.dtype, device=a.device)[:, :, None]
    square = _product(a, a)
    cube = _product(square, a)
    out = eye + a + square / 2 + _product(cube, eye / 6 + a / 24 + square / 120 + cube / 720)
    for _ in range(halvings):
        out = _product(out, out)
    return out.permute(2, 0, 1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Products of matrices of shape `z_dim z_dim nodes`."""
    out = a[:, :1] * b[0]
    for j in range(1, len(b)):
        out = out.addcmul_(a[:, j, None], b[j])
    return out


@functools.lru_cache(maxsize=16)
def spread(num_operators: int, count: int, radius: float) -> Tensor:
    """`count` coefficients in a ball of that radius, the same for every call, not to be changed.

    They are sorted by the signs of the first four operators, equally many of each pattern: the
    shape is `patterns each num_operators`. In each pattern directions are uniform and distances
    evenly spaced, so that most nodes lie near zero. The global generator is left alone.
    """
    generator = torch.Generator().manual_seed(2020)
    signed = min(num_operators, _MOST_SIGNS)
    patterns = 2**signed
    direction = torch.randn(
        patterns, count // patterns, num_operators, generator=generator, dtype=torch.float64
    )
    bits = torch.arange(patterns)[:, None] >> torch.arange(signed) & 1
    direction[..., :signed] = direction[..., :signed].abs() * (2 * bits[:, None] - 1)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    distance = (torch.arange(count // patterns, dtype=torch.float64) + 0.5) * patterns / count
    return direction * distance[:, None] * radius


def best_by_pattern(objective: Tensor, kept: int) -> Tensor:
    """For each pair the lowest nodes, but as many from each pattern of signs.

    The lowest nodes of all tend to lie in one valley, from which only one minimum is found. Of
    objectives `batch patterns each` these are indices into `patterns * each`, of shape `batch
    kept`, or fewer where there are fewer.
    """
    patterns, each = objective.shape[1:]
    lowest, rank = objective.topk(min(-(-kept // patterns), each), 2, largest=False)
    index = rank + each * torch.arange(patterns, device=rank.device)[:, None]
    order = lowest.flatten(1).topk(min(kept, lowest[0].numel()), 1, largest=False).indices
    return index.flatten(1).gather(1, order)
