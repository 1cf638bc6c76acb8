"""The objective of every pair at coefficients that all pairs share.

A matrix `expm(A)` at shared coefficients is formed once, and a pair's half squared residual is
linear in it and in its Gram matrix: all pairs times all nodes are one product of matrices. That
makes it cheap to look at thousands of places before descending from the best few.
"""

import torch
from torch import Tensor

_MOST_SIGNS = 4  # operators whose signs make a pattern: sixteen patterns


def objectives_at(matrices: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """`0.5 |end_b - T_g start_b|^2`, infinite where it overflows.

    Args:
        matrices: The T, of shape `nodes z_dim z_dim`.
        start: The points to be moved, of shape `batch z_dim`.
        end: The points to be reached, of the same shape.

    Returns:
        The values, of shape `batch nodes`.
    """
    gram = (matrices.mT @ matrices).flatten(1)
    pairs = torch.cat(
        [
            0.5 * (start[:, :, None] * start[:, None]).flatten(1),
            -(end[:, :, None] * start[:, None]).flatten(1),
        ],
        1,
    )
    value = pairs @ torch.cat([gram, matrices.flatten(1)], 1).T
    value = value + 0.5 * end.square().sum(1, keepdim=True)
    return torch.where(torch.isfinite(value), value, torch.inf)


def spread(num_operators: int, count: int, radius: float, like: Tensor) -> Tensor:
    """The same `count` coefficients for every call, spread over a ball; the first is zero.

    Directions are those of a normal distribution and distances evenly spaced, so that most nodes
    lie near zero. The generator is this function's own: the global one is left alone.
    """
    generator = torch.Generator().manual_seed(2020)
    direction = torch.randn(count, num_operators, generator=generator, dtype=torch.float64)
    direction = direction / direction.norm(dim=1, keepdim=True)
    distance = torch.arange(count, dtype=torch.float64) / count * radius
    return (direction * distance[:, None]).to(like)


def best_by_orthant(nodes: Tensor, objective: Tensor, kept: int) -> Tensor:
    """For each pair the lowest nodes, but as many from each pattern of signs.

    The lowest nodes of all tend to lie in one valley, from which only one minimum is found.

    Args:
        nodes: The coefficients, of shape `nodes num_operators`.
        objective: Their objectives, of shape `batch nodes`.
        kept: How many to return.

    Returns:
        Indices of nodes, of shape `batch kept`, or fewer where there are fewer patterns.
    """
    signs = (nodes[:, :_MOST_SIGNS] > 0).long()
    pattern = (signs * 2 ** torch.arange(signs.shape[1], device=nodes.device)).sum(1)
    patterns = pattern.unique()
    each = -(-kept // len(patterns))
    lowest = []
    for value in patterns:
        index = (pattern == value).nonzero()[:, 0]
        rank = objective[:, index].topk(min(each, len(index)), 1, largest=False).indices
        lowest.append(index[rank])
    candidates = torch.cat(lowest, 1)
    order = objective.gather(1, candidates).topk(min(kept, candidates.shape[1]), 1, largest=False)
    return candidates.gather(1, order.indices)
