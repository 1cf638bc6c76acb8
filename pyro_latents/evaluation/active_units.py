"""How many coordinates of a code carry information on the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_latents.data.batches import BatchMaker
from pyro_latents.evaluation.draws import seeded_batches, several
from pyro_latents.programs import local_parameters, random_sites

THRESHOLD = 0.01
DRAWS = 16
# Data points that are used, the first ones.
POINTS = 1000


def active_units(guide: Callable, batches: BatchMaker, *, seed: int = 0) -> dict[str, int]:
    r"""Count the coordinates of each latent site whose posterior mean varies over the data.

    .. math:: A_u = \mathrm{Cov}_x\big(\mathbb{E}_{q(u | x)}[u]\big) > 0.01

    The mean is estimated twice, from independent draws, and the covariance of the two estimates
    is free of the draws' own variance: any guide that can be drawn from will do.

    Sites that are not real vectors are left out.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5.2
    """
    means: defaultdict[str, list[Tensor]] = defaultdict(list)
    with torch.no_grad(), local_parameters(guide):
        for batch in seeded_batches(batches, points=POINTS, seed=seed):
            for name, site in random_sites(several(guide, DRAWS, *batch)):
                value, is_vector = site["value"], len(site["fn"].event_shape) == 1
                if site["is_observed"] or not value.is_floating_point() or not is_vector:
                    continue
                if value.shape[:2] == (DRAWS, len(batch[0])):
                    means[name].append(value.unflatten(0, (2, -1)).mean(1))
    counts = {}
    for name, parts in means.items():
        first, second = torch.cat(parts, 1)[:, :POINTS].flatten(2)
        covariance = ((first - first.mean(0)) * (second - second.mean(0))).sum(0)
        counts[name] = int((covariance / (len(first) - 1) > THRESHOLD).sum())
    return counts
