"""Statistics of one data point, small enough to keep for every draw of every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Data points whose distances are in memory at a time.
ROWS = 2000


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


def ink(x: Tensor) -> Tensor:
    """Mean intensity of images, `*leading channels height width`."""
    return x.mean((-3, -2, -1))


def centre_x(x: Tensor) -> Tensor:
    """Centre of mass to the right of the middle, in pixels."""
    return _moments(x)[0]


def centre_y(x: Tensor) -> Tensor:
    """Centre of mass below the middle, in pixels."""
    return _moments(x)[1]


def spread(x: Tensor) -> Tensor:
    """Root mean squared distance of the ink from its centre, in pixels."""
    _, _, xx, yy, _ = _moments(x)
    return (xx + yy).sqrt()


def elongation(x: Tensor) -> Tensor:
    """Variance of the ink across less that along the page, as a part of their sum."""
    _, _, xx, yy, _ = _moments(x)
    return (xx - yy) / (xx + yy).clamp_min(1e-6)


def slant(x: Tensor) -> Tensor:
    """Covariance of the ink's two coordinates as a part of the sum of their variances.

    It is half the sine of twice the angle for an ideal stroke, and unlike an angle it has no jump.
    """
    _, _, xx, yy, xy = _moments(x)
    return xy / (xx + yy).clamp_min(1e-6)


def edge_energy(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels."""
    across, down = x.diff(dim=-1).abs(), x.diff(dim=-2).abs()
    return (across.mean((-3, -2, -1)) + down.mean((-3, -2, -1))) / 2


def euler_number(x: Tensor) -> Tensor:
    """Pieces less holes of the image above one half, with pixels joined at their sides."""
    ink = (_grey(x) > 0.5).float()
    # Pixels, less pairs of neighbours, and blocks of four: vertices, edges and faces.
    across, down = ink[..., 1:] * ink[..., :-1], ink[..., 1:, :] * ink[..., :-1, :]
    blocks = across[..., 1:, :] * across[..., :-1, :]
    pixels, rows, columns, faces = (part.sum((-2, -1)) for part in (ink, across, down, blocks))
    return pixels - rows - columns + faces


def asymmetry_x(x: Tensor) -> Tensor:
    """Mean absolute difference from the mirror image, left and right exchanged."""
    return _asymmetry(x, -1)


def asymmetry_y(x: Tensor) -> Tensor:
    """Mean absolute difference from the mirror image, top and bottom exchanged."""
    return _asymmetry(x, -2)


IMAGE_STATISTICS = {
    "ink": Statistic(ink, "mean intensity: brightness and stroke width"),
    "centre_x": Statistic(centre_x, "centre of mass across, in pixels"),
    "centre_y": Statistic(centre_y, "centre of mass down, in pixels"),
    "spread": Statistic(spread, "distance of the ink from its centre, in pixels"),
    "elongation": Statistic(elongation, "wide against tall"),
    "slant": Statistic(slant, "slant of the ink, with its sign"),
    "edge_energy": Statistic(edge_energy, "contrast of neighbours: falls when images blur"),
    "euler_number": Statistic(euler_number, "pieces less holes: broken strokes, specks"),
    "asymmetry_x": Statistic(asymmetry_x, "difference from the image mirrored across"),
    "asymmetry_y": Statistic(asymmetry_y, "difference from the image mirrored down"),
}
VECTOR_STATISTICS = {
    "norm": Statistic(lambda x: x.norm(dim=-1), "distance from the origin"),
    "mean": Statistic(lambda x: x.mean(-1), "mean of the coordinates"),
    "sd": Statistic(lambda x: x.std(-1), "spread of the coordinates"),
    "largest": Statistic(lambda x: x.amax(-1), "largest coordinate"),
    "smallest": Statistic(lambda x: x.amin(-1), "smallest coordinate"),
}


def statistics_for(x_shape: torch.Size | tuple[int, ...]) -> dict[str, Statistic]:
    """Return the usual statistics of data points of some shape."""
    return IMAGE_STATISTICS if len(x_shape) == 3 else VECTOR_STATISTICS


def distance_to(points: Tensor) -> Statistic:
    """Return the distance of vectors from the nearest of some points, of shape `points features`.

    Of training points, it is large off the manifold of the data, and near zero for copies.
    """

    def distance(x: Tensor) -> Tensor:
        near = [torch.cdist(part, points).amin(-1) for part in x.flatten(0, -2).split(ROWS)]
        return torch.cat(near).reshape(x.shape[:-1])

    return Statistic(distance, "distance from the nearest training point")


def _asymmetry(x: Tensor, dim: int) -> Tensor:
    # One half against the other: the rest of the image would say the same again.
    size, half = x.shape[dim], x.shape[dim] // 2
    first, last = x.narrow(dim, 0, half), x.narrow(dim, size - half, half)
    total = (first - last.flip(dim)).abs().sum((-3, -2, -1))
    return 2 * total / x.shape[-3:].numel()


def _grey(x: Tensor) -> Tensor:
    return x.squeeze(-3) if x.shape[-3] == 1 else x.mean(-3)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """First moments from the middle and second central ones, each of shape `*leading`."""
    image = _grey(x)
    height, width = image.shape[-2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    down = torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2
    one_across, one_down = torch.ones_like(across), torch.ones_like(down)
    # All sums over pixels in one product, which reads the images once.
    pairs = (
        (one_down, one_across),
        (one_down, across),
        (down, one_across),
        (one_down, across.square()),
        (down.square(), one_across),
        (down, across),
    )
    weights = torch.stack([torch.outer(*pair).flatten() for pair in pairs], -1)
    mass, mx, my, xx, yy, xy = (image.flatten(-2) @ weights).unbind(-1)
    mass = mass.clamp_min(1e-6)
    mx, my, xx, yy, xy = (moment / mass for moment in (mx, my, xx, yy, xy))
    xx, yy = (xx - mx.square()).clamp_min(0), (yy - my.square()).clamp_min(0)
    return mx, my, xx, yy, xy - mx * my
