"""What the live parts of several stories need: images to pick, and what a guide infers of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.data.examples import Examples
from pyro_latents.live.declared import Picture, Sliders
from pyro_latents.live.lowering import noise_at_its_centre
from pyro_latents.programs import Centred, local_parameters

# Images to pick from, and points that the ranges of sliders are read off.
PICKED, MEASURED = 10, 500
# How far sliders go, in standard deviations of a standard normal prior.
REACH = 3.0
# Sliders that are seen at once.
SEEN = 10


def inferred(guide: Callable, *batch: Any) -> dict[str, Tensor]:
    """Return the latent variables that a guide infers, each at the centre of its posterior.

    Those of a flow, which has no mean, are at the centre of its noise.
    """
    with local_parameters(guide), Centred():
        nodes: Any = poutine.trace(guide).get_trace(*batch).nodes
    return {name: node["value"] for name, node in nodes.items() if node["type"] == "sample"}


def measured(guide: Callable, x: Tensor, site: str) -> Tensor:
    """Return what a guide infers at a site of some data points, `n dim`."""
    with noise_at_its_centre():
        return inferred(guide, x[:MEASURED])[site]


def picture(examples: Examples, title: str = "an image") -> Picture:
    """Return a picture to draw, or to pick: the first of each class, or the first ones.

    Args:
        examples: Test images.
        title: What it is called.
    """
    y = examples.y
    if y is None:
        chosen = list(range(min(PICKED, len(examples))))
        captions = [f"test image {i + 1}" for i in chosen]
    else:
        classes = y.unique().tolist()[:PICKED]
        chosen = [int((y == label).nonzero()[0]) for label in classes]
        captions = [
            f"test image {i + 1}, of class {c}" for i, c in zip(chosen, classes, strict=True)
        ]
    return Picture("x", title, examples.x[chosen], captions)


def code_sliders(name: str, title: str, codes: Tensor) -> Sliders:
    """Return sliders of a code with a standard normal prior; those that carry most are seen.

    Args:
        name: Of the site.
        title: What the code is, in words.
        codes: Of some data points, `n dim`: a coordinate that is the same for all carries nothing.
    """
    size = codes.shape[-1]
    order = codes.std(0).argsort(descending=True)[:SEEN].sort().values
    reach = torch.full((size,), REACH)
    return Sliders(name, title, -reach, reach, shown=order.tolist(), is_normal=True)
