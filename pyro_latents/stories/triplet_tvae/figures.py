"""The picture of a triplet TVAE: one image's transformation, given to others."""

from __future__ import annotations

from math import radians

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_latents.data.affine import rotate
from pyro_latents.models.triplet_tvae import SeveralViewsTVAE
from pyro_latents.plots import INCHES_PER_IMAGE, show_grid
from pyro_latents.stories.story import Parts
from pyro_latents.stories.triplet_tvae.batches import pixelated

# Test images: the first one is transformed, the others are given its transformation.
FIRST, SIDE = 2, 8
DEGREES, BLOCK = 35.0, 4


def figures(parts: Parts) -> dict[str, Figure]:
    """Return the picture by the name of its file."""
    figure = Figure(
        figsize=(INCHES_PER_IMAGE * SIDE + 1.5, 3 * INCHES_PER_IMAGE + 0.5), layout="constrained"
    )
    show_transfer(figure.subplots(), parts, SIDE)
    return {"transfer": figure}


@torch.no_grad()
def show_transfer(axis: Axes, parts: Parts, side: int) -> None:
    """Draw a triplet, and next to it other images under the transformation inferred from it."""
    x = parts.splits.test.x[FIRST : FIRST + side]
    source, others = x[:1], x[1:]
    found = parts.story.build_transformation(parts)
    assert found is not None
    if isinstance(parts.model, SeveralViewsTVAE):
        views, names = [pixelated(source, BLOCK)], ["image", "its view, T"]
        T = found.infer(source, views[0])
        transformed = [found.apply(others, T.expand(len(others), -1))]
    else:
        angle = source.new_tensor([radians(DEGREES)])
        views = [rotate(source, sign * angle) for sign in (1, -1)]
        names = ["image", "view, $T$", "inverse, $T^{-1}$"]
        T = found.infer(*views).expand(len(others), -1)
        inverse = parts.model.transformation.inverse(T)
        transformed = [found.apply(others, each) for each in (T, inverse)]
    rows = [x, *(torch.cat([v, t]) for v, t in zip(views, transformed, strict=True))]
    show_grid(axis, torch.stack(rows), "$T$ of the first column, applied to the others", names)
    axis.axvline(x.shape[-1] - 0.5, color="C3", lw=1)
