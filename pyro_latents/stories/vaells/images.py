"""What VAELLS has for images: networks (Connor et al., 2020, table 5), and turned digits."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_latents.data.affine import rotate
from pyro_latents.data.batches import Plain
from pyro_latents.data.rotated import MAX_ANGLE
from pyro_latents.nets.conv import TransposedConv, over_leading


class ConnorEncoder(nn.Module):
    """The code of a 28x28 image: three convolutions of 64 channels and a linear map."""

    def __init__(self, z_dim: int, channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, z_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `*leading channels 28 28` to `*leading z_dim`."""
        return over_leading(self.layers, x, event_dims=3)


class ConnorDecoder(nn.Module):
    """The means of a 28x28 image's pixels, in [0, 1]: a linear map and three convolutions."""

    def __init__(self, z_dim: int, channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(z_dim, 64 * 7 * 7),
            nn.ReLU(),
            nn.Unflatten(-1, (64, 7, 7)),
            TransposedConv(64, 64, 4, padding=1),
            nn.ReLU(),
            TransposedConv(64, 64, 4, stride=2, padding=2),
            nn.ReLU(),
            TransposedConv(64, channels, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map `*leading z_dim` to `*leading channels 28 28`."""
        return over_leading(self.layers, z, event_dims=1)


@dataclass(frozen=True)
class RotatedWithAnchors(Plain):
    """Images turned by 0 to 350 degrees, with evenly turned views of the same image as anchors.

    A batch is ``(x, y, anchors)``, the anchors of shape `batch num_anchors channels height width`.

    Args:
        examples: The images; where they have been turned already, ``extras["upright"]`` is what
            is turned.
        num_anchors: Views of each image, turned by even parts of a full circle from upright.
        fresh: Whether angles are drawn anew in every batch; if not, x is as it is.
    """

    num_anchors: int = 10
    fresh: bool = True

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
