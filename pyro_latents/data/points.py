"""Arrays of one's own as data points: images in [0, 1], or vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_latents.errors import UserError

# Channels that networks and pictures know: grey, and red, green and blue.
CHANNELS = (1, 3)
BYTE = 255


def point_shape(shape: tuple[int, ...], what: str) -> tuple[int, ...]:
    """Return the shape of one data point of an array.

    Args:
        shape: `n features` of vectors; `n height width`, `n channels height width` or
            `n height width channels` of images.
        what: What the array is called in messages.

    Raises:
        UserError: if it is none of these.

    Example:
        >>> point_shape((50, 28, 28), "x"), point_shape((50, 32, 32, 3), "x")
        ((1, 28, 28), (3, 32, 32))
    """
    n, *rest = shape or (0,)
    if n and min(rest, default=0):
        if len(rest) == 1:
            return (rest[0],)
        if len(rest) == 2:
            return (1, *rest)
        if len(rest) == 3 and rest[0] in CHANNELS:
            return tuple(rest)
        if len(rest) == 3 and rest[2] in CHANNELS:
            return (rest[2], *rest[:2])
    raise UserError(
        f"{what} is of shape {tuple(shape)}: data points are vectors, `n features`, or images of "
        "1 or 3 channels, `n height width`, with the channels before or behind."
    )


def as_points(values: Any, what: str = "x") -> Tensor:
    """Return data points as float32 tensors, images in [0, 1] and with their channels in front.

    Bytes are divided by 255; other numbers are taken as they are.

    Args:
        values: A tensor, an array, or what numpy makes one of.
        what: What it is called in messages.

    Raises:
        UserError: if the shape, the kind or the range is none of data points.
    """
    x = as_tensor(values, what)
    shape = point_shape(tuple(x.shape), what)
    if x.dim() == 4 and tuple(x.shape[1:]) != shape:
        x = x.movedim(-1, 1)
    is_image = len(shape) == 3
    if is_image and not x.is_floating_point() and x.dtype != torch.bool:
        low, high = int(x.min()), int(x.max())
        if low < 0 or high > BYTE:
            raise UserError(
                f"{what} has whole numbers from {low} to {high}: images are bytes, 0 to 255, or "
                "numbers from 0 to 1."
            )
        # Zeros and ones are black and white, unless they come as bytes.
        x = x.float() / (BYTE if x.dtype == torch.uint8 or high > 1 else 1)
    x = x.float().reshape(len(x), *shape)
    if not bool(torch.isfinite(x).all()):
        raise UserError(f"{what} has numbers that are not finite: leave those data points out.")
    if is_image and (x.amin() < 0 or x.amax() > 1):
        first = "add to them what makes none negative, and " if x.amin() < 0 else ""
        raise UserError(
            f"{what} has pixels from {x.amin():.3g} to {x.amax():.3g}: images are numbers from 0 "
            f"to 1, or bytes; {first}divide them by their largest value."
        )
    return x


def points_like(values: Any, shape: tuple[int, ...], what: str = "x") -> Tensor:
    """Return data points of a given shape, `batch *shape`; a single one is a batch of one.

    Raises:
        UserError: if they are of another shape.
    """
    x = as_tensor(values, what)
    given = tuple(x.shape)
    # An image alone, channels first, last or left out; of two dimensions it is one of any size.
    alone = (shape, shape[1:], (*shape[1:], *shape[:1]))
    if tuple(x.shape) in alone or (len(shape) == 3 and x.dim() == 2):
        x = x[None]
    points = as_points(x, what)
    if tuple(points.shape[1:]) != shape:
        raise UserError(
            f"{what} has {in_words(tuple(points.shape[1:]))}, not the {in_words(shape)} that the "
            f"model was trained on: {_todo(given, shape)}."
        )
    return points


def _todo(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What to do with an array, for the points that are wanted."""
    if len(wanted) != 3:
        return "give data points of that shape"
    channels, height, width = wanted
    if len(shape) == 2 and shape[1] == height * width * channels:
        return f"reshape them to {(shape[0], *wanted)}"
    mode = "L" if channels == 1 else "RGB"
    return f"make them so, by Pillow's convert({mode!r}) and resize({(width, height)})"


def as_tensor(values: Any, what: str = "x") -> Tensor:
    """Return values as a tensor of any shape, kind and range.

    Raises:
        UserError: if they are no array of numbers.
    """
    if isinstance(values, Tensor):
        return values.detach()
    try:
        array = np.asarray(values)
        # torch has no unsigned numbers to compute with, but for bytes.
        array = array.astype(np.int64) if array.dtype.kind == "u" and array.itemsize > 1 else array
        # Strides may be negative, and bytes in the order of another machine.
        native = array.astype(array.dtype.newbyteorder("="))
        return torch.from_numpy(np.ascontiguousarray(native))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{what} is no array of numbers, all of one shape: give one, or the path of an image "
            "or of a folder."
        ) from error


def in_words(shape: tuple[int, ...]) -> str:
    """Return the shape of a data point in words.

    Example:
        >>> in_words((1, 28, 28)), in_words((3, 32, 32)), in_words((2,))
        ('grey images of 28 x 28', 'colour images of 32 x 32', 'vectors of 2 numbers')
    """
    if len(shape) != 3:
        return f"vectors of {shape[0]} numbers"
    return f"{'grey' if shape[0] == 1 else 'colour'} images of {shape[1]} x {shape[2]}"
