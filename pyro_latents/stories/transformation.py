"""What moves the content of a data point in a story: a map of images, a pose, a path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Transformation:
    """A transformation of data points by one of a story's latent variables.

    Args:
        site: The latent variable, as the model calls it.
        size: How many numbers it has.
        shown_by: What it is inferred from, one phrase for each argument of ``infer``.
        infer: Maps data points, each `batch *x_shape`, to the variable, `batch size`.
        apply: Returns the means of data points `batch *x_shape` under values of the variable,
            `batch size`, or under the identity without any.
    """

    site: str
    size: int
    shown_by: tuple[str, ...]
    infer: Callable[..., Tensor]
    apply: Callable[[Tensor, Tensor | None], Tensor]
