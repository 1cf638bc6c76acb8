"""Whether the probabilities of a Bernoulli likelihood are those of the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_latents.data.batches import BatchMaker
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.programs import local_parameters, paired_traces

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
    model: Callable, guide: Callable, batches: BatchMaker, *, seed: int = 0
) -> Reliability:
    """Compare the pixels of a Bernoulli site ``x`` with their probabilities at a guide's draw."""
    edges = torch.linspace(0, 1, BINS + 1)[1:-1]
    sums = torch.zeros(3, BINS, dtype=torch.double)
    with torch.no_grad(), local_parameters(model, guide):
        for batch in seeded_batches(batches, seed=seed):
            site: Any = paired_traces(model, guide, *batch)[0].nodes["x"]
            p, x = site["fn"].mean.flatten().cpu(), site["value"].flatten().cpu()
            values = torch.stack([p, x, torch.ones_like(p)]).double()
            sums.index_add_(1, torch.bucketize(p, edges), values)
    count = sums[2].clamp_min(1)
    return Reliability(sums[0] / count, sums[1] / count, sums[2])
