r"""Batches of images with transformed views: triplets, augmented images, and pixelations.

A triplet is an image :math:`x`, its view :math:`x_1 = f(x)` and the view under the inverse,
:math:`x_2 = f^{-1}(x)`, with :math:`f` affine and drawn anew for each image and batch. Each view
is then cropped at random, on its own, so that the two are not exact inverses (figure 3 of
Giannone et al., 2019). The paper does not give the ranges; those here are ours.

A crop is an affine map as well, so each view is resampled once, whatever happens to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log, radians

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_latents.data.affine import affine_matrix, move
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError

# A map of the content of an image: linear parts `*batch 2 2` and translations `*batch 2`.
AffineMap = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class AffineRanges:
    """How far a random transformation goes; every range is symmetric about the identity.

    Args:
        angle: Largest rotation, in degrees.
        scale: Largest factor, and one over the smallest; log-uniform, for x and y apart.
        shear: Largest shear.
        shift: Largest translation in x and y, in pixels.
        crop: Smallest side of the crop, as a part of the image's; 1 for no crop.

    Raises:
        UserError: if a range is negative, the scale below 1 or the crop not in (0, 1].
    """

    angle: float = 45.0
    scale: float = 1.2
    shear: float = 0.1
    shift: float = 2.0
    crop: float = 0.85

    def __post_init__(self) -> None:
        if min(self.angle, self.shear, self.shift) < 0:
            raise UserError(
                f"the ranges of angle ({self.angle}), shear ({self.shear}) and shift "
                f"({self.shift}) must not be negative."
            )
        if self.scale < 1:
            raise UserError(f"the scale is a largest factor, at least 1; got {self.scale}.")
        if not 0 < self.crop <= 1:
            raise UserError(f"the crop is a part of the image's side, in (0, 1]; got {self.crop}.")

    def draw(self, size: int, generator: torch.Generator) -> AffineMap:
        """Draw the maps of `size` images, about their centres."""
        u = 2 * torch.rand(size, 6, generator=generator, device=generator.device) - 1
        scale = (log(self.scale) * u[:, 2:4]).exp()
        linear = affine_matrix(radians(self.angle) * u[:, 0], self.shear * u[:, 1], scale)
        return linear, self.shift * u[:, 4:]

    def draw_crop(
        self, shape: tuple[int, ...], generator: torch.Generator, *, image_size: tuple[int, int]
    ) -> AffineMap:
        """Draw windows and return the maps that blow them up to the size of the image.

        Args:
            shape: The batch of maps.
            generator: The source of randomness.
            image_size: Height and width, in pixels.
        """
        u = torch.rand(*shape, 3, generator=generator, device=generator.device)
        side = self.crop + (1 - self.crop) * u[..., 0]
        free = u.new_tensor([image_size[1], image_size[0]]) * (1 - side).unsqueeze(-1)
        centre = free * (u[..., 1:] - 0.5)
        zoom = 1 / side[..., None]
        return zoom.unsqueeze(-1) * torch.eye(2, device=u.device), -zoom * centre


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
class Triplets:
    """Images with a random view and its inverse view: ``(x, x1, x2)``.

    Args:
        examples: Images.
        ranges: How far the transformations and the crops go.
    """

    examples: Examples
    ranges: AffineRanges = field(default_factory=AffineRanges)

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the images at `index` and their views, each `batch channels height width`."""
        x = self.examples.x[index]
        there = self.ranges.draw(len(x), generator)
        x1, x2 = views(x, there, self.ranges, generator)
        return x, x1, x2


@dataclass(frozen=True)
class Augmented:
    """One member of a random triplet of each image: ``(x,)``, the training data of VAE+.

    The image itself, its view and its inverse view are equally likely, so that the model sees
    the distribution of images that the triplet story does.

    Args:
        examples: Images.
        ranges: How far the transformations and the crops go.
    """

    examples: Examples
    ranges: AffineRanges = field(default_factory=AffineRanges)

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return one image for each of `index`, of shape `batch channels height width`."""
        members = torch.stack(Triplets(self.examples, self.ranges)(index, generator))
        which = torch.randint(3, (len(index),), generator=generator, device=generator.device)
        return (members[which, torch.arange(len(index), device=which.device)],)


def views(
    x: Tensor, there: AffineMap, ranges: AffineRanges, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the images under given maps and under their inverses, each cropped at random."""
    back = inverse(there)
    both = torch.stack([there[0], back[0]]), torch.stack([there[1], back[1]])
    if ranges.crop < 1:
        shape, image_size = (2, len(x)), (x.shape[-2], x.shape[-1])
        both = composed(both, ranges.draw_crop(shape, generator, image_size=image_size))
    x1, x2 = move(x, *both)
    return x1, x2


# A view of a batch of images: another batch of the same shape, random by the generator.
View = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Pixelation:
    """Images averaged over blocks, a transformation without an inverse.

    Args:
        blocks: Sides of the blocks, in pixels; each image draws one of them.
    """

    blocks: tuple[int, ...] = (2, 4, 7)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Pixelate images of shape `batch channels height width`."""
        choices = torch.stack([_pixelated(x, block) for block in self.blocks])
        which = torch.randint(
            len(self.blocks), (len(x),), generator=generator, device=generator.device
        )
        return choices[which, torch.arange(len(x), device=x.device)]


@dataclass(frozen=True)
class SeveralViews:
    """Images with any number of views, none the inverse of another: ``(x, x1, ..., xV)``.

    Args:
        examples: Images.
        views: The views, such as `Pixelation`.
    """

    examples: Examples
    views: tuple[View, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the images at `index` and their views, each `batch channels height width`."""
        x = self.examples.x[index]
        return (x, *(view(x, generator) for view in self.views))


def _pixelated(x: Tensor, block: int) -> Tensor:
    small = F.avg_pool2d(x, block, ceil_mode=True, count_include_pad=False)
    large = small.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)
    return large[..., : x.shape[-2], : x.shape[-1]]
