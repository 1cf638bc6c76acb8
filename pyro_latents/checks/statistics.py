"""Statistics of one data point, small enough to keep for every draw of every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

# Data points whose distances are in memory at a time.
ROWS = 2000
PIXELS = (-3, -2, -1)


@dataclass(frozen=True)
class Statistic:
    """A number for each data point.

    Args:
        function: Maps data points of shape `*leading *x_shape` to numbers of shape `*leading`.
        meaning: What it says, in words, for tables.
        whole: Whether it is of whole data points only, such as what a classifier says.
    """

    function: Callable[[Tensor], Tensor]
    meaning: str
    whole: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Return the statistic of each data point."""
        return self.function(x)


class Moments(NamedTuple):
    """Of the ink of images, in pixels: its mean from the middle, and its covariance."""

    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor


def moments(image: Tensor) -> Moments:
    """Return those of images of shape `*leading channels height width`, each `*leading`."""
    grey = _grey(image)
    height, width = (
        torch.arange(n, device=grey.device, dtype=grey.dtype) for n in grey.shape[-2:]
    )
    y, x = torch.meshgrid(height - height.mean(), width - width.mean(), indexing="ij")
    # All sums over pixels in one product, which reads the images once.
    powers = torch.stack([torch.ones_like(x), x, y, x.square(), y.square(), x * y], -1)
    mass, *sums = (grey.flatten(-2) @ powers.flatten(0, 1)).unbind(-1)
    mx, my, xx, yy, xy = (found / mass.clamp_min(1e-6) for found in sums)
    xx, yy = (xx - mx.square()).clamp_min(0), (yy - my.square()).clamp_min(0)
    return Moments(mx, my, xx, yy, xy - mx * my)


def edge_energy(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels."""
    across, down = x.diff(dim=-1).abs(), x.diff(dim=-2).abs()
    return (across.mean(PIXELS) + down.mean(PIXELS)) / 2


def euler_number(x: Tensor) -> Tensor:
    """Pieces less holes of the image above one half, with pixels joined at their sides."""
    ink = (_grey(x) > 0.5).float()
    # Pixels, less pairs of neighbours, and blocks of four: vertices, edges and faces.
    across, down = ink[..., 1:] * ink[..., :-1], ink[..., 1:, :] * ink[..., :-1, :]
    blocks = across[..., 1:, :] * across[..., :-1, :]
    pixels, rows, columns, faces = (part.sum((-2, -1)) for part in (ink, across, down, blocks))
    return pixels - rows - columns + faces


def asymmetry(x: Tensor, dim: int) -> Tensor:
    """Mean absolute difference from the mirror image in a dimension."""
    # One half against the other: the rest of the image would say the same again.
    size, half = x.shape[dim], x.shape[dim] // 2
    first, last = x.narrow(dim, 0, half), x.narrow(dim, size - half, half)
    total = (first - last.flip(dim)).abs().sum(PIXELS)
    return 2 * total / x.shape[-3:].numel()


def _of_moments(function: Callable[[Moments], Tensor], meaning: str) -> Statistic:
    return Statistic(lambda x: function(moments(x)), meaning)


def _share(part: Tensor, m: Moments) -> Tensor:
    """A part of the sum of the variances."""
    return part / (m.xx + m.yy).clamp_min(1e-6)


# Of images, `*leading channels height width`.
IMAGE_STATISTICS = {
    "ink": Statistic(lambda x: x.mean(PIXELS), "mean intensity: brightness and stroke width"),
    "centre_x": _of_moments(lambda m: m.x, "centre of mass across, in pixels"),
    "centre_y": _of_moments(lambda m: m.y, "centre of mass down, in pixels"),
    "spread": _of_moments(
        lambda m: (m.xx + m.yy).sqrt(), "distance of the ink from its centre, in pixels"
    ),
    "elongation": _of_moments(lambda m: _share(m.xx - m.yy, m), "wide against tall"),
    # Half the sine of twice the angle for an ideal stroke: unlike an angle, it has no jump.
    "slant": _of_moments(lambda m: _share(m.xy, m), "slant of the ink, with its sign"),
    "edge_energy": Statistic(edge_energy, "contrast of neighbours: falls when images blur"),
    "euler_number": Statistic(euler_number, "pieces less holes: broken strokes, specks"),
    "asymmetry_x": Statistic(
        partial(asymmetry, dim=-1), "difference from the image mirrored across"
    ),
    "asymmetry_y": Statistic(
        partial(asymmetry, dim=-2), "difference from the image mirrored down"
    ),
}
VECTOR_STATISTICS = {
    "norm": Statistic(lambda x: x.norm(dim=-1), "distance from the origin"),
    "mean": Statistic(lambda x: x.mean(-1), "mean of the coordinates"),
    "sd": Statistic(lambda x: x.std(-1), "spread of the coordinates"),
    "largest": Statistic(lambda x: x.amax(-1), "largest coordinate"),
    "smallest": Statistic(lambda x: x.amin(-1), "smallest coordinate"),
}


def distance_to(points: Tensor) -> Statistic:
    """Return the distance of vectors from the nearest of some points, of shape `points features`.

    Of training points, it is large off the manifold of the data, and near zero for copies.
    """

    def distance(x: Tensor) -> Tensor:
        near = [torch.cdist(part, points).amin(-1) for part in x.flatten(0, -2).split(ROWS)]
        return torch.cat(near).reshape(x.shape[:-1])

    return Statistic(distance, "distance from the nearest training point")


def _grey(x: Tensor) -> Tensor:
    return x.squeeze(-3) if x.shape[-3] == 1 else x.mean(-3)
