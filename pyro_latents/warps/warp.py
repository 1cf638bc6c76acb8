r"""Spatial transformers: differentiable warps of images by a few numbers.

A warp moves the *sampling points*: the output at :math:`p` is the image at :math:`p + d(p; u)`,
read off bilinearly, with zeros outside the image or the nearest pixels of its border. Coordinates
are normalised, (-1, -1) the centre of the first pixel and (1, 1) that of the last
(``align_corners=True``), x to the right, y down.

Every warp here is linear in its coefficients,

.. math:: d(p; u) = \sum_k c_k(u) f_k(p),

with fixed functions :math:`f_k`, so one product with a constant matrix makes the sampling grids of
a whole batch. All parameters are counted from the identity: zeros give the image back bit for bit.

References:
    Spatial Transformer Networks (Jaderberg et al., 2015), https://arxiv.org/abs/1506.02025
    Variational generation of images by deep spatial architectures (Vivé), sections I.iv and V.iii
"""

from abc import abstractmethod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Beyond these an image has long left its frame; they keep every grid and gradient finite.
PARAMETER_LIMIT = 1e3

# What is read outside of an image: zeros, or the nearest of its pixels.
Border = Literal["zeros", "replicate"]


class Warp(nn.Module):
    """A warp whose displacement is a linear combination of fixed functions of the position.

    Args:
        image_size: Height and width of the images.
        functions: Values of the functions on `pixel_grid(image_size)`, of shape
            `num_functions height*width`, in float64.
        num_parameters: How many numbers describe one warp.
        border: What is read outside of an image: ``zeros``, or the nearest of its pixels
            (``replicate``).

    Raises:
        ValueError: if the border is another one.

    Implementing a warp:
        - ``coefficients``: finite for finite parameters, zero at zero parameters;
        - ``inverse``: the parameters of a warp (``undoing``) that undoes this one;
        - ``matrix``: the affine part, as a 2x3 matrix.
    """

    _grid: Tensor
    _basis: Tensor
    _unit: Tensor
    identity: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        functions: Tensor,
        *,
        num_parameters: int,
        border: Border = "zeros",
    ) -> None:
        super().__init__()
        if border not in get_args(Border):
            raise ValueError(f"border must be one of {get_args(Border)}; got {border!r}.")
        self.border = border
        height, width = image_size
        self.image_size = (height, width)
        self.num_parameters = num_parameters
        # `grid_sample` computes (g + 1) (size - 1) / 2: free of rounding on a frame of 2^n + 1.
        frame = (_exact_size(width), _exact_size(height))
        self._padding = (0, frame[0] - width, 0, frame[1] - height)
        sizes = zip((width, height), frame, strict=True)
        steps = [torch.arange(n) * 2 / (m - 1) - 1 for n, m in sizes]
        grid = torch.stack(torch.meshgrid(*steps, indexing="xy"), dim=-1).flatten()
        units = torch.tensor([width - 1, height - 1], dtype=torch.float64)
        units = units / (torch.tensor(frame) - 1)
        basis = torch.kron(functions.contiguous(), torch.diag(units))
        dtype = torch.get_default_dtype()
        self.register_buffer("_grid", grid.to(dtype), persistent=False)
        self.register_buffer("_basis", basis.to(dtype), persistent=False)
        self.register_buffer("_unit", torch.eye(2, 3), persistent=False)
        self.register_buffer("identity", torch.zeros(num_parameters), persistent=False)

    @property
    def collapsed(self) -> Tensor:
        """Parameters with which every pixel reads the middle of the image."""
        raise NotImplementedError(f"no parameters of {type(self).__name__} do that.")

    def forward(self, image: Tensor, parameters: Tensor) -> Tensor:
        """Warp images `*leading channels height width` by parameters `*leading num_parameters`.

        Leading dimensions broadcast.

        Raises:
            ValueError: if the images or the parameters are not of this warp's sizes.
        """
        self._check(image, parameters)
        leading = torch.broadcast_shapes(image.shape[:-3], parameters.shape[:-1])
        image = image.expand(*leading, *image.shape[-3:]).reshape(-1, *image.shape[-3:])
        grid = self._sampling_grid(
            parameters.expand(*leading, -1).reshape(-1, self.num_parameters)
        )
        # Both steps have the border, since the frame of the second is that of the first.
        padding, outside = {
            "zeros": ("constant", "zeros"),
            "replicate": ("replicate", "border"),
        }[self.border]
        framed = F.pad(image, self._padding, mode=padding)
        warped = F.grid_sample(framed, grid, padding_mode=outside, align_corners=True)
        return warped.reshape(*leading, *image.shape[-3:])

    def undo(self, image: Tensor, parameters: Tensor) -> Tensor:
        """Warp images by the inverse of `parameters`; shapes as in ``forward``."""
        return self.undoing(image, self.inverse(parameters))

    @property
    def undoing(self) -> "Warp":
        """The warp that understands what ``inverse`` returns."""
        return self

    @abstractmethod
    def coefficients(self, parameters: Tensor) -> Tensor:
        """Map parameters, `*leading num_parameters`, to `*leading num_functions 2` (x, y)."""

    @abstractmethod
    def inverse(self, parameters: Tensor) -> Tensor:
        """Return the parameters, for ``undoing``, of the inverse warp."""

    @abstractmethod
    def matrix(self, parameters: Tensor) -> Tensor:
        """Return the map's affine part, `*leading 2 3`: the point p is read at `A p + t`."""

    def angle(self, parameters: Tensor) -> Tensor:
        """Return the rotation nearest to the affine part, in radians, of shape `*leading`."""
        matrix = self.matrix(parameters)
        return torch.atan2(
            matrix[..., 1, 0] - matrix[..., 0, 1], matrix[..., 0, 0] + matrix[..., 1, 1]
        )

    def _sampling_grid(self, parameters: Tensor) -> Tensor:
        coefficients = self.coefficients(parameters).flatten(-2)
        return torch.addmm(self._grid, coefficients, self._basis).unflatten(
            -1, (*self.image_size, 2)
        )

    def _check(self, image: Tensor, parameters: Tensor) -> None:
        name = type(self).__name__
        if image.shape[-2:] != self.image_size or image.dim() < 3:
            raise ValueError(
                f"{name} expects images of shape (..., channels, {self.image_size[0]}, "
                f"{self.image_size[1]}); got {tuple(image.shape)}. Build it with image_size="
                f"{tuple(image.shape[-2:])} or add the channel dimension."
            )
        if parameters.shape[-1:] != (self.num_parameters,):
            raise ValueError(
                f"{name} expects {self.num_parameters} parameters in the last dimension; got "
                f"{tuple(parameters.shape)}."
            )


def pixel_grid(size: tuple[int, int]) -> Tensor:
    """Return the normalised (x, y) of an evenly spaced grid, row by row: `height*width 2`.

    Raises:
        ValueError: if there are fewer than two rows or columns.
    """
    if min(size) < 2:
        raise ValueError(f"A grid needs at least two rows and two columns; got {tuple(size)}.")
    rows, columns = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in size)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)


def _exact_size(size: int) -> int:
    return 2 ** (size - 2).bit_length() + 1
