"""How many coordinates of a code carry information on the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.data.batches import Batches, BatchMaker, mixed_seed
from pyro_latents.programs import local_parameters, plate_nesting, random_sites, vectorised

THRESHOLD = 0.01
DRAWS = 16


def active_units(
    guide: Callable, batches: BatchMaker, *, points: int = 1000, seed: int = 0
) -> dict[str, int]:
    r"""Count the coordinates of each latent site whose posterior mean varies over the data.

    .. math:: A_u = \mathrm{Cov}_x\big(\mathbb{E}_{q(u | x)}[u]\big) > 0.01

    The mean is estimated twice, from independent draws, and the covariance of the two estimates
    is free of the draws' own variance: any guide that can be drawn from will do.

    Args:
        guide: The guide.
        batches: The maker of the batches of the data set.
        points: Data points to use, the first ones.
        seed: Of the draws.

    Returns:
        The number of active coordinates by site; sites that are not real vectors are left out.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5.2
    """
    points = min(points, len(batches))
    loader = Batches(batches, min(100, points), seed=seed, shuffle=False)
    means: defaultdict[str, list[Tensor]] = defaultdict(list)
    with torch.no_grad(), local_parameters(guide):
        for number in range(-(-points // loader.batch_size)):
            torch.manual_seed(mixed_seed(seed, number))
            batch = loader.batch(number)
            for name, value in _draws(guide, batch).items():
                means[name].append(value.unflatten(0, (2, -1)).mean(1))
    counts = {}
    for name, parts in means.items():
        first, second = torch.cat(parts, 1)[:, :points].flatten(2)
        covariance = ((first - first.mean(0)) * (second - second.mean(0))).sum(0) / (points - 1)
        counts[name] = int((covariance > THRESHOLD).sum())
    return counts


def _draws(guide: Callable, batch: tuple) -> dict[str, Tensor]:
    """Draws of the real vectors among the guide's sites, each `draws batch ...`."""
    once = poutine.trace(guide).get_trace(*batch)
    several = vectorised(guide, DRAWS, plate_nesting(once))
    trace = poutine.trace(several).get_trace(*batch)
    return {
        name: site["value"]
        for name, site in random_sites(trace)
        if not site["is_observed"]
        and site["value"].is_floating_point()
        and len(site["fn"].event_shape) == 1
        and site["value"].shape[:2] == (DRAWS, len(batch[0]))
    }
