r"""House numbers made of MNIST: coloured digits with neighbours, on an uneven wall.

A stand-in for the Street View House Numbers where these are not at hand, of their shape and of
their difficulties: the digit of the middle gives the class, what is beside it does not; ink may be
darker or lighter than the wall; light falls unevenly. It is not SVHN, and figures of the two are
not to be compared.

.. math:: x = \mathrm{clip}\big(w + m (c - w) + \epsilon\big)

with the wall w, a smooth field of colour, the ink m of three digits in a row, its colour c, and
noise :math:`\epsilon`.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_latents.data.affine import affine_matrix, move
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.rotated import drawn_anew, in_chunks

SHAPE = (3, 32, 32)
MAX_ANGLE, MAX_SHEAR = 0.17, 0.2
# Of an MNIST image to that of a digit, x and y: its 20 rows of ink become 17 to 26.
SCALE = (0.85, 1.3)
MAX_SHIFT = 2.0
# Between the middles of digits in a row, in pixels; how often there is one on a side.
PITCH, NEIGHBOUR = (13.0, 18.0), 0.6
# Ink and wall differ by that much in brightness, and the wall's light by that much in itself.
CONTRAST, UNEVEN = (0.25, 0.7), 0.25
PATCHES = 4  # a side of the field of light
NOISE = 0.02
BRIGHTNESS = (0.299, 0.587, 0.114)
# Numbers that an image is made from, beside its digits, its light and its noise.
DRAWS = 16


def street_splits(mnist: Splits, *, seed: int = 0) -> Splits:
    """House numbers of MNIST's digits, on the device of these, each once.

    The neighbours of a digit are of its own split. Each split has its own draws, the same on every
    device.
    """
    return drawn_anew(mnist, _placed, seed)


def _placed(examples: Examples, generator: torch.Generator) -> Examples:
    digits, number = examples.x, len(examples)

    def make(x: Tensor) -> Tensor:
        rows = torch.randint(number, (len(x), 2), generator=generator)
        drawn = (
            torch.rand(len(x), DRAWS, generator=generator),
            torch.randn(len(x), 3, PATCHES, PATCHES, generator=generator),
            torch.randn(len(x), *SHAPE, generator=generator),
        )
        row = torch.cat([x[:, None], digits[rows.to(x.device)]], 1)
        return house_numbers(row, *(each.to(x.device) for each in drawn))

    x = in_chunks(make, digits) if number else digits.new_zeros(0, *SHAPE)
    provenance = f"{examples.provenance}, as coloured house numbers (no SVHN)"
    return replace(examples, x=x, provenance=provenance)


def house_numbers(digits: Tensor, numbers: Tensor, light: Tensor, noise: Tensor) -> Tensor:
    """Lay digits in a row, colour them, and light the wall behind.

    Args:
        digits: The one of the middle, its left and its right neighbour, in [0, 1], of shape
            `batch 3 1 height width`.
        numbers: Uniform in [0, 1], of shape `batch DRAWS`: angle, shear, scales and shifts,
            pitch, neighbours, and the colours of wall and ink.
        light: Standard normal, of shape `batch 3 PATCHES PATCHES`.
        noise: Standard normal, of shape `batch 3 32 32`.

    Returns:
        Images in [0, 1], of shape `batch 3 32 32`.
    """
    signed = 2 * numbers - 1
    # The digits of a house lean alike, are as large as each other, and stand on one line.
    angle, shear = MAX_ANGLE * signed[:, 0], MAX_SHEAR * signed[:, 1]
    matrix = affine_matrix(angle, shear, _between(numbers[:, 2:4], SCALE))
    pitch = _between(numbers[:, 6:7], PITCH)
    places = torch.cat([torch.zeros_like(pitch), -pitch, pitch], 1)
    shift = torch.stack([places, torch.zeros_like(places)], -1) + MAX_SHIFT * signed[:, None, 4:6]
    ink = move(digits, matrix[:, None], shift, size=SHAPE[1:])
    shown = torch.cat([torch.ones_like(pitch), (numbers[:, 7:9] < NEIGHBOUR).to(ink)], 1)
    ink = (ink * shown[..., None, None, None]).amax(1)

    wall, colour = _colours(numbers[:, 9:])
    field = F.interpolate(light, SHAPE[1:], mode="bicubic", align_corners=False)
    wall = wall[..., None, None] + UNEVEN / 2 * field
    image = wall + ink * (colour[..., None, None] - wall)
    return (image + NOISE * noise).clamp(0, 1)


def _colours(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Wall and ink, `batch 3` each, by seven numbers: as far apart as `CONTRAST` says."""
    wall, hue = numbers[:, :3], numbers[:, 3:6] - 0.5
    brightness = wall @ wall.new_tensor(BRIGHTNESS)
    # Darker on a light wall and lighter on a dark one; beyond what a screen shows it is cut off.
    step = torch.where(brightness > 0.5, -1.0, 1.0)
    contrast = step * _between(numbers[:, 6], CONTRAST)
    colour = wall + contrast[:, None] + 0.5 * (hue - hue.mean(1, keepdim=True))
    return wall, colour.clamp(0, 1)


def _between(uniform: Tensor, ends: tuple[float, float]) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * uniform
