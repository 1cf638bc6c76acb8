"""Means over data points, how far they may be off, and differences on the same data points."""

from __future__ import annotations

from math import nan
from typing import NamedTuple

from torch import Tensor


class PairedDifference(NamedTuple):
    """A mean difference and how far it may be off.

    Args:
        mean: The mean over the data points.
        standard_error: That of the mean; not a number for a single point.
        points: The number of data points.
    """

    mean: float
    standard_error: float
    points: int

    def __str__(self) -> str:
        """Return the mean and the standard error, with as many digits as that calls for.

        Example:
            >>> print(PairedDifference(1.2345, 0.0213, 100))
            +1.234 +- 0.021
        """
        digits = 3 if self.standard_error < 0.1 else 2
        return f"{self.mean:+.{digits}f} +- {self.standard_error:.{digits}f}"


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values `points`; not a number for a single one."""
    spread = values.double().std().item() if len(values) > 1 else nan
    return spread / len(values) ** 0.5


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of values `points`, and its `standard_error`."""
    return values.double().mean().item(), standard_error(values)


def paired_difference(one: Tensor, other: Tensor) -> PairedDifference:
    """Return how much larger the second is than the first, both of shape `points`.

    Example:
        >>> import torch
        >>> paired_difference(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 5.0]))
        PairedDifference(mean=2.0, standard_error=1.0, points=2)
    """
    difference = (other.double() - one.double()).cpu()
    return PairedDifference(*mean_and_standard_error(difference), len(difference))
