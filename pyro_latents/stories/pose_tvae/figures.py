"""The picture of the pose stories: images in several poses, and in the reference pose."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.plots import INCHES_PER_IMAGE, show_grid
from pyro_latents.stories.story import Parts

# Images, and turns of each, in degrees.
SHOWN, TURNS, FURTHEST = 3, 8, 150.0


def figures(parts: Parts) -> dict[str, Figure]:
    """Return the picture by the name of its file."""
    figure = Figure(
        figsize=(INCHES_PER_IMAGE * TURNS + 1.6, 2 * SHOWN * INCHES_PER_IMAGE + 0.5),
        layout="constrained",
    )
    show_poses(figure.subplots(), parts, TURNS)
    return {"poses": figure}


@torch.no_grad()
def show_poses(axis: Axes, parts: Parts, turns: int) -> None:
    """Draw turned test images, each above what is inferred of it in the reference pose."""
    test, found = parts.splits.test, parts.story.build_transformation(parts)
    assert found is not None
    upright = test.extras.get("upright", test.x)[:SHOWN]
    angles = torch.linspace(-FURTHEST, FURTHEST, turns, device=upright.device).deg2rad()
    rows: list[Tensor] = []
    for image in upright:
        turned = rotate(image.expand(turns, *image.shape), angles)
        rows += [turned, found.apply(turned, None)]
    title = "turned images, each above its reference pose"
    show_grid(axis, torch.stack(rows), title, ["turned", "reference"] * len(upright))
