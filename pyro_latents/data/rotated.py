"""Images turned by random angles, as a fixed data set or anew in every batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.data.batches import mixed_seed
from pyro_latents.data.examples import Examples, Splits

# Connor et al. (2020), appendix E.
MAX_ANGLE = math.radians(350)
# Bounds the memory of the sampling grids.
CHUNK = 4_096


def rotated_splits(splits: Splits, *, seed: int = 0, max_angle: float = MAX_ANGLE) -> Splits:
    """Every image turned once by an angle of its own, uniform in [0, ``max_angle``].

    The counter-clockwise angle, in radians, is ``extras["angle"]``; the image as it was is
    ``extras["upright"]``.

    Args:
        splits: The upright images.
        seed: Of the angles; each split has its own draws, the same on every device.
        max_angle: The largest angle in radians.
    """
    parts = (splits.train, splits.validation, splits.test)
    train, validation, test = (
        _rotated(part, torch.Generator().manual_seed(mixed_seed(seed, i)), max_angle)
        for i, part in enumerate(parts)
    )
    return replace(splits, train=train, validation=validation, test=test)


@dataclass(frozen=True)
class Rotated:
    """Images turned by fresh angles in every batch: ``(x,)``.

    Args:
        examples: The images; where they have been turned already, their ``extras["upright"]``
            is what is turned.
        max_angle: The largest angle in radians; the smallest is 0.
    """

    examples: Examples
    max_angle: float = MAX_ANGLE

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Turned images, of shape `batch channels height width`."""
        upright = self.examples.extras.get("upright", self.examples.x)[index]
        angle = torch.rand(len(index), generator=generator, device=upright.device)
        return (rotate(upright, self.max_angle * angle),)


def in_chunks(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a function to a few thousand rows at a time and join what it gives."""
    if not len(tensors[0]):
        return function(*tensors)
    pieces = zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True)
    return torch.cat([function(*piece) for piece in pieces])


def _rotated(examples: Examples, generator: torch.Generator, max_angle: float) -> Examples:
    angle = (max_angle * torch.rand(len(examples), generator=generator)).to(examples.device)
    return replace(
        examples,
        x=in_chunks(rotate, examples.x, angle),
        extras={**examples.extras, "angle": angle, "upright": examples.x},
        provenance=f"{examples.provenance}, turned by 0 to {math.degrees(max_angle):.0f} degrees",
    )
