"""Codes of data, at the centre of the posterior, and images of a model, by their means."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.programs import Centred, centre, local_parameters, paired_traces

ROWS = 2_000


def codes(guide: Any, *batch: Tensor, site: str = "z") -> Tensor:
    """Return the means of a site's posterior, of shape `batch dim`; a draw where it has no mean.

    Of a guide without a ``posterior`` they are the values at the means of all sites before it.

    Args:
        guide: A guide; of a refined one, the guide that it refines is quicker.
        *batch: What it is called with, each of shape `batch ...`, a few thousand
            rows at a time.
        site: The name of the site.
    """
    pieces = zip(*(part.split(ROWS) for part in batch), strict=True)
    with torch.no_grad(), local_parameters(guide):
        return torch.cat([_codes(guide, piece, site) for piece in pieces])


def _codes(guide: Any, piece: tuple[Tensor, ...], site: str) -> Tensor:
    if hasattr(guide, "posterior"):
        return centre(guide.posterior(*piece)[site])
    with Centred():
        return poutine.trace(guide).get_trace(*piece).nodes[site]["value"]


def reconstructions(model: Callable, guide: Callable, *batch: Any) -> Tensor:
    """The mean of `x` at one draw of the guide, of the shape of the observations."""
    with torch.no_grad(), local_parameters(model, guide):
        site: Any = paired_traces(model, guide, *batch)[0].nodes["x"]
    return site["fn"].mean


def prior_means(model: Callable, size: int) -> Tensor:
    """The mean of `x` at draws of the prior, of shape `size *x_shape`."""
    with torch.no_grad(), local_parameters(model):
        site: Any = poutine.trace(model).get_trace(size=size).nodes["x"]
    return site["fn"].mean
