"""Codes of sets: means of a network over their members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_latents.nets.conv import over_leading


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes in the place of the sets that they are of.

    Args:
        r: Of shape `*leading r_dim`.
    """

    r: Tensor

    def __len__(self) -> int:
        return len(self.r)


class Pool(NamedTuple):
    """Sets that share members, in the place of the sets one by one.

    A member costs one encoding, however many sets it is in.

    Args:
        members: Of shape `n *x_shape`.
        shares: What each member counts in the mean of each set, of shape `*leading n`: one over
            the size of the set, or zero.
    """

    members: Tensor
    shares: Tensor


Sets = Tensor | Pool | Codes


class SetEncoder(nn.Module):
    r"""The code of a set: the mean of a network over its members, equation (2).

    .. math:: r = \frac{1}{m} \sum_{i=1}^m f_\mathrm{inv}(x_i)

    The value does not depend on the order of the members. Where no sets are given, the codes are
    those of the classes, the means over all labelled points: the buffer ``class_means``, zero
    until :meth:`~pyro_latents.models.equivae.EquiVAE.refresh_class_means` has been called.

    Args:
        network: Maps `n *x_shape` to `n r_dim`.
        r_dim: Size of a code.
        num_classes: The number of classes.
        event_dims: The number of dimensions of one member.
    """

    class_means: Tensor

    def __init__(
        self, network: nn.Module, r_dim: int, num_classes: int, event_dims: int = 3
    ) -> None:
        super().__init__()
        self.network = network
        self.r_dim = r_dim
        self.event_dims = event_dims
        self.register_buffer("class_means", torch.zeros(num_classes, r_dim))

    def forward(self, sets: Sets | None = None) -> Tensor:
        """Map `*leading m *x_shape` to `*leading r_dim`; without sets, return the class means."""
        if sets is None:
            return self.class_means
        if isinstance(sets, Codes):
            return sets.r
        if isinstance(sets, Pool):
            return mean_codes(self.embed(sets.members), sets)
        return self.embed(sets).mean(-2)

    def embed(self, x: Tensor) -> Tensor:
        """Return `f_inv(x)` of single members, `*leading *x_shape` to `*leading r_dim`."""
        return over_leading(self.network, x, self.event_dims)


def mean_codes(codes: Tensor, pool: Pool) -> Tensor:
    """Return the codes of the sets of a pool, `*leading r_dim`, given its members', `n r_dim`."""
    return pool.shares.to(codes.dtype) @ codes
