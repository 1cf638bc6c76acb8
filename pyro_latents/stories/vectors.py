"""The pictures of a story whose data points are vectors, in planes that show most of them."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from pyro import poutine

from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.codes import prior_means, reconstructions
from pyro_latents.plots import plane
from pyro_latents.programs import Centred, latent_sites, local_parameters

SHOWN = 1_000


@torch.no_grad()
def picture_of_vectors(model: Any, guide: Any, examples: Examples) -> Figure:
    """Draw codes, data, reconstructions and draws of the prior, each point in its own colour.

    Colours are positions along a curve, or classes, where they are known. Data points are shown in
    the plane of their two principal components, codes likewise where they have more numbers.

    Args:
        model: The model of data points alone.
        guide: Its guide.
        examples: Test points.
    """
    test = examples.take(slice(SHOWN))
    x = test.x
    with local_parameters(model, guide):
        sites = dict(latent_sites(poutine.trace(Centred()(guide)).get_trace(x)))
    name, codes = next((n, s["value"]) for n, s in reversed(sites.items()) if s["value"].dim() > 1)
    data = (x, reconstructions(model, guide, x), prior_means(model, len(x)))
    points = [plane(codes, codes), *(plane(part, x) for part in data)]
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    titles = f"codes {name}", "test points", "reconstructions", "draws of the prior"
    axes = figure.subplots(1, len(titles))
    for axis, title, shown in zip(axes, titles, points, strict=True):
        colours = {} if title == titles[-1] else colours_of(test)
        axis.scatter(*shown.T.cpu().numpy(), s=5, **colours)
        axis.set(title=title, xticks=[], yticks=[], box_aspect=1)
    for axis in axes[2:]:
        # Draws far off would shrink what there is to see.
        axis.set(xlim=axes[1].get_xlim(), ylim=axes[1].get_ylim())
    return figure


def colours_of(examples: Examples) -> dict[str, Any]:
    """Return how `Axes.scatter` colours data points: by position along a curve, or by class.

    All have one colour where neither is known.
    """
    known = examples.extras.get("position", examples.y)
    return {} if known is None else {"c": known.cpu().numpy(), "cmap": "viridis"}
