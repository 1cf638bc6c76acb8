"""Images turned by random angles, each once."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.data.batches import mixed_seed
from pyro_latents.data.examples import Examples, Splits

# Connor et al. (2020), appendix E.
MAX_ANGLE = math.radians(350)
# Bounds the memory of the sampling grids.
CHUNK = 4_096


def rotated_splits(splits: Splits, *, seed: int = 0) -> Splits:
    """Every image turned by an angle of its own, uniform in [0, ``MAX_ANGLE``].

    The counter-clockwise angle, in radians, is ``extras["angle"]``; the image as it was is
    ``extras["upright"]``. Each split has its own draws, the same on every device.
    """
    return drawn_anew(splits, _rotated, seed)


def drawn_anew(
    splits: Splits, make: Callable[[Examples, torch.Generator], Examples], seed: int
) -> Splits:
    """Make other data of each split, with draws of its own.

    Args:
        splits: The data that there are.
        make: Makes those of a split; its generator is on the CPU, so that the draws are the same
            whatever the device.
        seed: What the draws hang on, beside the split.
    """
    parts = (splits.train, splits.validation, splits.test)
    train, validation, test = (
        make(part, torch.Generator().manual_seed(mixed_seed(seed, i)))
        for i, part in enumerate(parts)
    )
    return replace(splits, train=train, validation=validation, test=test)


def in_chunks(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a function to a few thousand rows at a time and join what it gives."""
    if not len(tensors[0]):
        return function(*tensors)
    pieces = zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True)
    return torch.cat([function(*piece) for piece in pieces])


def _rotated(examples: Examples, generator: torch.Generator) -> Examples:
    angle = (MAX_ANGLE * torch.rand(len(examples), generator=generator)).to(examples.device)
    return replace(
        examples,
        x=in_chunks(rotate, examples.x, angle),
        extras={**examples.extras, "angle": angle, "upright": examples.x},
        provenance=f"{examples.provenance}, turned by 0 to 350 degrees",
    )
