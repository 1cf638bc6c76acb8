"""The picture of an EquiVAE: each class in the style of each of some images."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_latents.models.equivae import joined
from pyro_latents.plots import INCHES_PER_IMAGE, show_grid
from pyro_latents.programs import Centred
from pyro_latents.stories.story import Parts

CLASSES, STYLES = 10, 10
# Test images whose styles are taken: these and the next ones.
FIRST = 10


def figures(parts: Parts) -> dict[str, Figure]:
    """Return the picture by the name of its file."""
    classes = min(CLASSES, parts.model.num_classes)
    figure = Figure(
        figsize=(INCHES_PER_IMAGE * STYLES + 1.2, INCHES_PER_IMAGE * (classes + 1) + 0.5),
        layout="constrained",
    )
    show_styles(figure.subplots(), parts, classes, STYLES)
    return {"styles": figure}


@torch.no_grad()
def show_styles(axis: Axes, parts: Parts, classes: int, styles: int) -> None:
    """Draw test images, and under each the classes, by row, in its style."""
    model, x = parts.model, parts.splits.test.x[FIRST : FIRST + styles]
    with Centred():
        v = parts.guide.infer(x)["v"]
    rows = [x]
    for r in model.class_means[:classes]:
        rows.append(model.likelihood(model.decoder(joined(r, v))).mean)
    names = ["image", *(f"class {y}" for y in range(classes))]
    title = "class $r$ by row, in the style $v$ of the image above"
    show_grid(axis, torch.stack(rows), title, names)
    axis.axhline(x.shape[-2] - 0.5, color="C3", lw=1)
