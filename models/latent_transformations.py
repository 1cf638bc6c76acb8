r"""Transformations of a latent code by a latent variable: :math:`r(z, T)`, invertible by design.

Giannone et al. (2019) ask of a transformation that there be an identity, and that every one have
an inverse of the same form. Here a transformation is a point :math:`T` of :math:`\mathbb{R}^p`,
and both demands are met exactly: :math:`T_{id} = 0` and :math:`T^{-1} = -T`.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

# Longest generator of a matrix, in units of the root mean square of standard normal ones.
MAX_LENGTH = 2.0


class LatentTransformation(nn.Module):
    r"""A family of invertible maps of codes, indexed by :math:`T \in \mathbb{R}^p`.

    Args:
        z_dim: Size of the code.
        parameter_dim: Size `p` of the latent transformation.

    Implementing a transformation:
        - ``forward`` accepts any leading dimensions, which broadcast;
        - with ``identity()`` it gives `z` back, and with ``inverse(T)`` it undoes `T`;
        - it is differentiable in both arguments, and moderate for `T` of order one.
    """

    def __init__(self, z_dim: int, parameter_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.parameter_dim = parameter_dim
        self._identity: Tensor
        self.register_buffer("_identity", torch.zeros(parameter_dim), persistent=False)

    @abstractmethod
    def forward(self, z: Tensor, transformation: Tensor) -> Tensor:
        """Transform codes.

        Args:
            z: Of shape `*leading z_dim`.
            transformation: Of shape `*leading parameter_dim`.

        Returns:
            The transformed codes, of shape `*leading z_dim`.
        """

    def apply(self, *args: Any) -> Any:
        """Transform codes: ``r.apply(z, T)`` is ``r(z, T)``.

        With one argument it is what it is in every module, `nn.Module.apply(function)`, which the
        modules around this one call.
        """
        return super().apply(*args) if len(args) == 1 else self(*args)

    def identity(self) -> Tensor:
        """Return the transformation that changes nothing, of shape `parameter_dim`."""
        return self._identity

    def inverse(self, transformation: Tensor) -> Tensor:
        """Return the transformations that undo the given ones, of the same shape."""
        return -transformation


class Additive(LatentTransformation):
    """`z + T`, the paper's runs: a commutative group."""

    def __init__(self, z_dim: int) -> None:
        super().__init__(z_dim, z_dim)

    def forward(self, z: Tensor, transformation: Tensor) -> Tensor:
        """Return `z + T`."""
        return z + transformation


class Matrix(LatentTransformation):
    r""":math:`\exp(A) z`, the matrix of the paper's outlook in a form that is always invertible.

    The transformation is the generator `A`, written row by row and multiplied by ``scale``. With
    the default :math:`1 / \sqrt{d}` a draw of standard normal numbers has eigenvalues in the
    unit disc, whatever the dimension. A generator more than ``MAX_LENGTH`` times longer than such
    draws is shortened to that: nothing holds an implicit `T` back in training, and the
    exponential of a long generator overflows.

    Differs from the paper, which only names a product `T z`: that has an inverse for almost every
    `T`, but none that a decoder could share with it.

    Args:
        z_dim: Size of the code; `T` has its square.
        scale: Factor of the generator.
    """

    def __init__(self, z_dim: int, scale: float | None = None) -> None:
        super().__init__(z_dim, z_dim**2)
        self.scale = z_dim**-0.5 if scale is None else scale

    def forward(self, z: Tensor, transformation: Tensor) -> Tensor:
        """Return `expm(scale A) z`."""
        generator = self.scale * transformation.unflatten(-1, (self.z_dim, self.z_dim))
        limit = MAX_LENGTH * self.scale * self.z_dim
        length = generator.square().sum((-2, -1), keepdim=True).clamp_min(limit**2).sqrt()
        generator = generator * (limit / length)
        return (torch.linalg.matrix_exp(generator) @ z.unsqueeze(-1)).squeeze(-1)
