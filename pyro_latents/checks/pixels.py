"""Whether the probabilities of a Bernoulli likelihood are those of the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.data.batches import Batches, BatchMaker, mixed_seed
from pyro_latents.programs import local_parameters

BINS = 20


@dataclass(frozen=True)
class Reliability:
    """Pixels sorted by the probability they were given.

    Args:
        predicted: The mean probability in each bin, of shape `bins`.
        found: The mean value of its pixels.
        count: The number of its pixels.
    """

    predicted: Tensor
    found: Tensor
    count: Tensor

    @property
    def expected_calibration_error(self) -> float:
        """The mean distance of what is found from what is predicted, over all pixels."""
        weight = self.count / self.count.sum()
        return (weight * (self.found - self.predicted).abs()).sum().item()


def reliability(
    model: Callable, guide: Callable, batches: BatchMaker, *, points: int, seed: int = 0
) -> Reliability:
    """Compare pixels with their probabilities given one draw of the guide.

    Args:
        model: A generative model with a Bernoulli site ``x``.
        guide: Its guide.
        batches: The maker of the batches of the data.
        points: Data points, the first ones.
        seed: Of the draws.
    """
    points = min(points, len(batches))
    loader = Batches(batches, min(100, points), seed=seed, shuffle=False)
    edges = torch.linspace(0, 1, BINS + 1)[1:-1]
    sums = torch.zeros(3, BINS, dtype=torch.double)
    with torch.no_grad(), local_parameters(model, guide):
        for number in range(-(-points // loader.batch_size)):
            torch.manual_seed(mixed_seed(seed, number))
            batch = loader.batch(number)
            drawn = poutine.trace(guide).get_trace(*batch)
            scored = poutine.trace(poutine.replay(model, drawn)).get_trace(*batch)
            site: Any = scored.nodes["x"]
            p, x = site["fn"].mean.flatten().cpu(), site["value"].flatten().cpu()
            index = torch.bucketize(p, edges)
            for row, values in zip(sums, (p, x, torch.ones_like(p)), strict=True):
                row.index_add_(0, index, values.double())
    count = sums[2].clamp_min(1)
    return Reliability(sums[0] / count, sums[1] / count, sums[2])
