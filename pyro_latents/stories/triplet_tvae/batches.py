r"""Batches of images with transformed views: triplets, augmented images, and pixelations.

A triplet is an image :math:`x`, its view :math:`x_1 = f(x)` and the view under the inverse,
:math:`x_2 = f^{-1}(x)`, with :math:`f` affine and drawn anew for each image and batch. Each view
is then cropped at random, on its own, so that the two are not exact inverses (figure 3 of
Giannone et al., 2019). The paper does not give the ranges; those here are ours.

A crop is an affine map as well, so each view is resampled once, whatever happens to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, radians

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_latents.data.affine import affine_matrix, move
from pyro_latents.data.batches import Plain
from pyro_latents.errors import UserError

# A map of the content of an image: linear parts `*batch 2 2` and translations `*batch 2`.
AffineMap = tuple[Tensor, Tensor]
# Largest factor, and one over the smallest; log-uniform, for x and y apart.
SCALE = 1.2


@dataclass(frozen=True, kw_only=True)
class AffineRanges:
    """How far random affine maps go; every range is symmetric about the identity.

    Args:
        angle: Largest rotation of a view, in degrees.
        shear: Largest shear of a view.
        shift: Largest translation of a view in x or y, in pixels.
        crop: Smallest side of the random crop of a view, as a part of the image's; 1 for no crop.
        shrink: Factor by which all images are made smaller first, about their middle: the frame
            in which larger ones would be shown whole. 1 leaves them as they are.
    """

    angle: float = 45.0
    shear: float = 0.1
    shift: float = 2.0
    crop: float = 0.85
    shrink: float = 1.0

    def check_ranges(self) -> None:
        """Raise a `UserError` if a range is negative, or the crop or the frame not in (0, 1]."""
        if min(self.angle, self.shear, self.shift) < 0:
            raise UserError(
                f"the ranges of angle ({self.angle}), shear ({self.shear}) and shift "
                f"({self.shift}) must not be negative."
            )
        if not 0 < self.crop <= 1:
            raise UserError(f"the crop is a part of the image's side, in (0, 1]; got {self.crop}.")
        if not 0 < self.shrink <= 1:
            raise UserError(f"--shrink is a factor in (0, 1]; got {self.shrink}.")

    def draw_maps(self, size: int, generator: torch.Generator) -> AffineMap:
        """Draw the maps of `size` images, about their centres."""
        u = 2 * torch.rand(size, 6, generator=generator, device=generator.device) - 1
        scale = (log(SCALE) * u[:, 2:4]).exp()
        linear = affine_matrix(radians(self.angle) * u[:, 0], self.shear * u[:, 1], scale)
        return linear, self.shift * u[:, 4:]

    def draw_crops(
        self, shape: tuple[int, ...], generator: torch.Generator, *, image_size: tuple[int, int]
    ) -> AffineMap:
        """Draw windows and return the maps that blow them up to the size of the image.

        The shape is that of the batch of maps, and the size of an image in pixels.
        """
        u = torch.rand(*shape, 3, generator=generator, device=generator.device)
        side = self.crop + (1 - self.crop) * u[..., 0]
        free = u.new_tensor([image_size[1], image_size[0]]) * (1 - side).unsqueeze(-1)
        centre = free * (u[..., 1:] - 0.5)
        zoom = 1 / side[..., None]
        return zoom.unsqueeze(-1) * torch.eye(2, device=u.device), -zoom * centre


def shrunken(x: Tensor, factor: float) -> Tensor:
    """Return images made smaller about their middle, in a frame of the same size."""
    return x if factor == 1 else move(x, factor * torch.eye(2, device=x.device))


def inverse(transformation: AffineMap) -> AffineMap:
    """Return the maps that undo the given ones."""
    linear, shift = transformation
    back = torch.linalg.inv_ex(linear).inverse
    return back, -(back @ shift.unsqueeze(-1)).squeeze(-1)


def composed(first: AffineMap, then: AffineMap) -> AffineMap:
    """Return the maps that do one after the other."""
    linear = then[0] @ first[0]
    return linear, (then[0] @ first[1].unsqueeze(-1)).squeeze(-1) + then[1]


@dataclass(frozen=True)
class Framed(Plain):
    """Images in the frame of the ranges: ``(x,)``."""

    ranges: AffineRanges = AffineRanges()

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the images at `index`, of shape `batch channels height width`."""
        return (shrunken(self.examples.x[index], self.ranges.shrink),)


@dataclass(frozen=True)
class Triplets(Framed):
    """Images with a random view and its inverse view: ``(x, x1, x2)``."""

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the images at `index` and their views, each `batch channels height width`."""
        (x,) = super().__call__(index, generator)
        there = self.ranges.draw_maps(len(x), generator)
        return x, *views(x, there, self.ranges, generator)


def views(
    x: Tensor, there: AffineMap, ranges: AffineRanges, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the images under given maps and under their inverses, each cropped at random."""
    back = inverse(there)
    both = torch.stack([there[0], back[0]]), torch.stack([there[1], back[1]])
    if ranges.crop < 1:
        shape, image_size = (2, len(x)), (x.shape[-2], x.shape[-1])
        both = composed(both, ranges.draw_crops(shape, generator, image_size=image_size))
    x1, x2 = move(x, *both)
    return x1, x2


@dataclass(frozen=True)
class Pixelations(Plain):
    """Images with views that have no inverse: averages over blocks, ``(x, x1, ..., xV)``.

    Each view draws the side of its blocks from ``blocks``, in pixels.
    """

    num_views: int = 2
    blocks: tuple[int, ...] = (2, 4, 7)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the images at `index` and their views, each `batch channels height width`."""
        x = self.examples.x[index]
        choices = torch.stack([pixelated(x, block) for block in self.blocks])
        return x, *(_one_of(choices, generator) for _ in range(self.num_views))


def pixelated(x: Tensor, block: int) -> Tensor:
    """Average images of shape `batch channels height width` over blocks of this side."""
    small = F.avg_pool2d(x, block, ceil_mode=True, count_include_pad=False)
    large = small.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)
    return large[..., : x.shape[-2], : x.shape[-1]]


def _one_of(choices: Tensor, generator: torch.Generator) -> Tensor:
    """One of the choices `n batch ...` for each member of the batch, each equally likely."""
    count, size = choices.shape[:2]
    which = torch.randint(count, (size,), generator=generator, device=generator.device)
    return choices[which, torch.arange(size, device=which.device)]
