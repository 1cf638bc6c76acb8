"""Codes of data: the centre of the posterior of a site."""

from typing import Any

import torch
from torch import Tensor

from pyro_latents.programs import centre

ROWS = 2_000


def codes(guide: Any, *batch: Tensor, site: str = "z") -> Tensor:
    """Return the means of a site's posterior, of shape `batch dim`; a draw where it has no mean.

    Args:
        guide: A guide; of a refined one, the guide that it refines is quicker.
        *batch: What its ``posterior`` is called with, each of shape `batch ...`, a few thousand
            rows at a time.
        site: The name of the site.
    """
    pieces = zip(*(part.split(ROWS) for part in batch), strict=True)
    with torch.no_grad():
        return torch.cat([centre(guide.posterior(*piece)[site]) for piece in pieces])
