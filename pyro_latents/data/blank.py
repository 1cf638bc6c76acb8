"""Data that are not there: of the right shape, with nothing in them."""

from __future__ import annotations

import torch

from pyro_latents.data.examples import Examples, Splits

# As many as any story takes from its data; they are one point in memory.
POINTS = 100_000


def blank_splits(shape: tuple[int, ...], num_classes: int) -> Splits:
    """Return splits of blank data points, to build a model around whose parameters come later.

    Args:
        shape: Of a data point.
        num_classes: The number of classes, equally many points of each; 0 for no labels.
    """
    x = torch.zeros(()).expand(POINTS, *shape)
    y = torch.arange(POINTS) % num_classes if num_classes else None
    blank = Examples(x, y, extras={"upright": x}, provenance="blank")
    return Splits(blank, blank.take(slice(0)), blank.take(slice(0)), num_classes)
