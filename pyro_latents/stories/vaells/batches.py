"""Batches for models with anchor points: labels, or anchors of each data point's own."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.data.examples import Examples
from pyro_latents.data.rotated import MAX_ANGLE


@dataclass(frozen=True)
class Labelled:
    """The data points as they are with their classes: ``(x, y)``, or ``(x,)`` without labels.

    Args:
        examples: The data points.
    """

    examples: Examples

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The data points at ``index``, of shape `batch ...`, and their labels."""
        if self.examples.y is None:
            return (self.examples.x[index],)
        return self.examples.x[index], self.examples.y[index]


@dataclass(frozen=True)
class RotatedWithAnchors:
    """Images turned by 0 to 350 degrees, with evenly turned views of the same image as anchors.

    A batch is ``(x, y, anchors)``, the anchors of shape `batch num_anchors channels height width`.

    Args:
        examples: The images; where they have been turned already, ``extras["upright"]`` is what
            is turned.
        num_anchors: Views of each image, turned by even parts of a full circle from upright.
        fresh: Whether angles are drawn anew in every batch; if not, x is as it is.
    """

    examples: Examples
    num_anchors: int = 10
    fresh: bool = True

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Turned images, their labels and their anchors."""
        upright = self.examples.extras.get("upright", self.examples.x)[index]
        if self.fresh:
            angle = torch.rand(len(index), generator=generator, device=upright.device)
            x = rotate(upright, MAX_ANGLE * angle)
        else:
            x = self.examples.x[index]
        y = self.examples.y
        labels = torch.zeros_like(index) if y is None else y[index]
        return x, labels, evenly_turned(upright, self.num_anchors)


def evenly_turned(images: Tensor, count: int) -> Tensor:
    """Each image turned by 0, 1/count, 2/count, ... of a circle: `batch count *image_shape`."""
    angles = 2 * math.pi / count * torch.arange(count, device=images.device)
    turned = rotate(images.repeat_interleave(count, 0), angles.repeat(len(images)))
    return turned.unflatten(0, (len(images), count))
