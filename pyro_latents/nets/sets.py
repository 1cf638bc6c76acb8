"""Encoders of sets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pyro_latents.nets.leading import over_leading

HELD = 2  # tensors whose codes are held: the sets of labelled points, and those of classes


class SetEncoder(nn.Module):
    r"""The mean of a network over the members of a set: equation (2) of Feige (2019).

    .. math:: r = \frac{1}{m} \sum_{i=1}^m f(x_i)

    The value does not depend on the order of the members. In a step of SVI the guide encodes the
    sets and the model needs the same codes a moment later: the guide calls :meth:`hold`, and the
    next call with the very same tensor and parameters takes what was held instead of encoding
    once more. That halves the cost of a step, and it makes guide and model agree on the units
    that dropout has left out.

    Args:
        network: Maps `n *x_shape` to `n r_dim`.
        r_dim: Size of a code.
        event_dims: The number of dimensions of one member.
    """

    def __init__(self, network: nn.Module, r_dim: int, event_dims: int = 3) -> None:
        super().__init__()
        self.network = network
        self.r_dim = r_dim
        self.event_dims = event_dims
        self._held: deque[_Held] = deque(maxlen=HELD)

    def forward(self, sets: Tensor) -> Tensor:
        """Map `*leading m *x_shape` to `*leading r_dim`."""
        for held in self._held:
            if held.sets is sets:
                self._held.remove(held)
                return held.codes if self._is_as(held) else self._encode(sets)
        return self._encode(sets)

    def hold(self, sets: Tensor) -> Tensor:
        """Encode, and keep the codes for the next call with this tensor."""
        codes = self._encode(sets)
        self._held.append(_Held(sets, codes, self._mode(), self._norm()))
        return codes

    def embed(self, x: Tensor) -> Tensor:
        """Return `f(x)` of single members, `*leading *x_shape` to `*leading r_dim`."""
        return over_leading(self.network, x, self.event_dims)

    def _encode(self, sets: Tensor) -> Tensor:
        return self.embed(sets).mean(-2)

    def _is_as(self, held: _Held) -> bool:
        return held.mode == self._mode() and torch.equal(held.norm, self._norm())

    def _mode(self) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), self.training

    def _norm(self) -> Tensor:
        """The norm of all parameters, which a step of an optimiser changes.

        Tensors count their changes, but not those that fused optimisers make.
        """
        return get_total_norm([p.detach() for p in self.parameters()])


@dataclass(frozen=True, eq=False)
class _Held:
    sets: Tensor
    codes: Tensor
    mode: tuple[bool, bool]
    norm: Tensor
