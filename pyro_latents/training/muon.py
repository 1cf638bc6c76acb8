r"""Muon: momentum whose matrices are orthogonalised before they are stepped by.

.. math:: B_t = \mu B_{t - 1} + G_t, \qquad
          W_t = W_{t - 1} - \eta \sqrt{\max(1, m / n)} \; \mathrm{polar}(G_t + \mu B_t)

for a matrix of m rows and n columns, its polar factor by five Newton-Schulz steps. A convolution
is the matrix of its first dimension against all others. `torch.optim.Muon` takes matrices only,
and rounds them to bfloat16, for which few CPUs have instructions.

References:
    Muon: An optimizer for hidden layers in neural networks (Jordan et al., 2024),
    https://kellerjordan.github.io/posts/muon/
"""

from collections.abc import Iterable, Iterator
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# The coefficients of Jordan et al. for singular values within a third of one, from any start.
A, B, C = 3.4445, -4.7750, 2.0315
STEPS = 5
# Of the smaller side: beyond it a step is dearer than the layer's own, for a batch of a hundred.
LARGEST = 128
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Muon(Optimizer):
    """Muon of Jordan et al. (2024) for weights of two dimensions or more.

    Args:
        params: The weights.
        lr: Step size, a number or a 0-d tensor: the spectral norm of a step.
        momentum: The decay of the momentum, which is Nesterov's.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: Any = 0.02, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """Take one step; return what the closure does, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, group["lr"], group["momentum"])
        return loss

    def _step(self, weight: Tensor, lr: Any, momentum: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        mean = state["momentum"].mul_(momentum).add_(weight.grad)
        matrix = (weight.grad + momentum * mean).flatten(1)
        rows, columns = matrix.shape
        step = polar(matrix) * (sqrt(max(1.0, rows / columns)) * lr)
        weight.sub_(step.to(weight.dtype).reshape(weight.shape))


def polar(matrix: Tensor) -> Tensor:
    """Return the orthogonal factor of a matrix, its singular values between .7 and 1.2.

    Each Newton-Schulz step multiplies by a polynomial of `X X^T`, and all of these commute: they
    are multiplied with each other, of the smaller side's size, and with the matrix once.

    Args:
        matrix: Of shape `rows columns`.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return polar(matrix.t()).t()
    x = matrix / (matrix.norm() + 1e-7)
    gram, factor = x @ x.t(), None
    for number in range(STEPS):
        p = torch.addmm(gram, gram, gram, beta=B, alpha=C)
        p.diagonal().add_(A)
        factor = p if factor is None else p @ factor
        if number < STEPS - 1:
            gram = p @ gram @ p
    assert factor is not None
    return factor @ x


def matrices(*programs: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of linear and convolutional layers that Muon is for, each once."""
    seen: set[int] = set()
    for module in nn.ModuleList(programs).modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, LAYERS) and isinstance(weight, nn.Parameter):
            small = min(weight.shape[0], weight[0].numel()) <= LARGEST
            if small and weight.requires_grad and id(weight) not in seen:
                seen.add(id(weight))
                yield weight
