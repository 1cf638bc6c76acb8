"""Affine warps, by all six numbers of the matrix or by five that one can name."""

import torch
from torch import Tensor

from pyro_latents.warps.warp import PARAMETER_LIMIT, Border, Warp, pixel_grid

# Scales of exp(7), about 1,100: a pixel of the frame fills it; they keep every gradient finite.
LOG_SCALE_LIMIT = 7.0
SMALLEST_DETERMINANT = 1e-6


class AffineWarp(Warp):
    """A warp that reads the point `p` at `A p + t`.

    Implementing an affine warp: write ``matrix``, bounded, the identity at zero parameters.

    Args:
        image_size: Height and width of the images.
        num_parameters: How many numbers describe one warp.
        border: What is read outside of an image (`Warp`).
    """

    def __init__(
        self, image_size: tuple[int, int], *, num_parameters: int, border: Border = "zeros"
    ) -> None:
        positions = pixel_grid(image_size)
        functions = torch.cat([positions, torch.ones(len(positions), 1)], dim=-1).T
        super().__init__(image_size, functions, num_parameters=num_parameters, border=border)

    def coefficients(self, parameters: Tensor) -> Tensor:
        """Return those of x, y and 1: the matrix less the identity, transposed."""
        return (self.matrix(parameters) - self._unit).mT

    def inverse(self, parameters: Tensor) -> Tensor:
        """Return the parameters, for `Affine6`, of the inverse map.

        A determinant near zero is held at ``SMALLEST_DETERMINANT``, so that the inverse of a
        collapsed image is finite.
        """
        a, b, c, d, e, f = self.matrix(parameters).flatten(-2).unbind(-1)
        determinant = a * e - b * d
        sign = torch.where(determinant < 0, -1.0, 1.0)
        determinant = sign * determinant.abs().clamp_min(SMALLEST_DETERMINANT)
        rows = torch.stack([e, -b, b * f - c * e, -d, a, c * d - a * f], dim=-1)
        return rows / determinant.unsqueeze(-1) - self._unit.flatten()


class Affine6(AffineWarp):
    r"""All six numbers of the matrix, as offsets from the identity.

    .. math:: M = \begin{pmatrix} 1 + u_1 & u_2 & u_3 \\ u_4 & 1 + u_5 & u_6 \end{pmatrix}

    Example:
        >>> warp, image = Affine6((28, 28)), torch.rand(5, 1, 28, 28)
        >>> torch.equal(warp(image, warp.identity), image)
        True
    """

    def __init__(self, image_size: tuple[int, int], *, border: Border = "zeros") -> None:
        super().__init__(image_size, num_parameters=6, border=border)

    @property
    def collapsed(self) -> Tensor:
        """A matrix of zeros."""
        return -self._unit.flatten()

    def matrix(self, parameters: Tensor) -> Tensor:
        """Return the 2x3 matrices, of shape `*leading 2 3`."""
        offsets = parameters.clamp(-PARAMETER_LIMIT, PARAMETER_LIMIT)
        return offsets.unflatten(-1, (2, 3)) + self._unit


class Affine5(AffineWarp):
    r"""Rotation, two log scales and two translations: section V.iii of Vivé's thesis.

    .. math:: M = \begin{pmatrix} S_x \cos\psi & -S_x \sin\psi & S_x T_x \\
              S_y \sin\psi & S_y \cos\psi & S_y T_y \end{pmatrix},
              \qquad u = (\psi, \log S_x, \log S_y, T_x, T_y)

    As printed there: a scale acts on a *row*, after the rotation, and on the translation too.
    """

    def __init__(self, image_size: tuple[int, int], *, border: Border = "zeros") -> None:
        super().__init__(image_size, num_parameters=5, border=border)
        self._undoing = Affine6(image_size, border=border)

    @property
    def undoing(self) -> Warp:
        """An `Affine6`, as the inverse of such a map has its scales on the columns."""
        return self._undoing

    def matrix(self, parameters: Tensor) -> Tensor:
        """Return the 2x3 matrices, of shape `*leading 2 3`."""
        return matrix_of_five(parameters)


def matrix_of_five(parameters: Tensor) -> Tensor:
    """Return the matrix of `Affine5`, `*leading 2 3`, of parameters `*leading 5`."""
    psi, log_scales, shifts = parameters.split([1, 2, 2], dim=-1)
    scales = log_scales.clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT).exp().unsqueeze(-1)
    cos, sin = psi.cos(), psi.sin()
    rotation = torch.cat([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
    shifts = shifts.clamp(-PARAMETER_LIMIT, PARAMETER_LIMIT).unsqueeze(-1)
    return scales * torch.cat([rotation, shifts], dim=-1)
