"""Draws for the data points of a data set: batch by batch, and many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace

from pyro_latents.data.batches import Batches, BatchMaker, mixed_seed
from pyro_latents.programs import plate_nesting, vectorised
from pyro_latents.progress import watched


def seeded_batches(
    batches: BatchMaker,
    *,
    points: int | None = None,
    size: int = 100,
    seed: int = 0,
    description: str | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield batches in the order of the data, torch's generator seeded anew for each.

    Args:
        batches: Makes them.
        points: Data points, the first ones; the last batch may have some more. None for all.
        size: Data points in a batch.
        seed: Of the draws.
        description: Of a progress bar, None for no bar.
    """
    points = min(points or len(batches), len(batches))
    loader = Batches(batches, min(size, points), seed=seed, shuffle=False)
    numbers = range(-(-points // loader.batch_size))
    for number in watched(numbers, description or "", shown=description is not None):
        torch.manual_seed(mixed_seed(seed, number))
        yield loader.batch(number)


def several(guide: Callable, count: int, *batch: Any) -> Trace:
    """Return the trace of a guide that is run several times at once, left of its plates."""
    once = poutine.trace(guide).get_trace(*batch)
    return poutine.trace(vectorised(guide, count, plate_nesting(once))).get_trace(*batch)
