"""Pictures of a check, by ArviZ where it has them."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from pyro_latents.checks.arviz_io import is_data_tree
from pyro_latents.checks.pixels import Reliability
from pyro_latents.checks.population import Population

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 5


def u_values(data: Any) -> Figure:
    """Draw the distribution of each statistic's u-values over the data points.

    By ArviZ's own plot: up to 0.23 the density beside that of uniform values, from 1 on the
    distribution function less the uniform one, with the p-value of a test of uniformity.
    """
    names = list(data["observed_data"].data_vars)
    with warnings.catch_warnings():
        # Of a model that is wrong, every u-value may be 0: that is a finding, not a fault.
        warnings.filterwarnings("ignore", "Your data appears to have a single value")
        # Of few images, holes are 0 or 1 by chance: the u-values of ties are drawn.
        warnings.filterwarnings("ignore", "Variables .* look binary")
        return (_differences if is_data_tree() else _densities)(data, names)


def _densities(data: Any, names: list[str]) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    # Untyped: a type checker sees one major of ArviZ, and the other has not this plot.
    arviz: Any = import_module("arviz")
    rows = -(-len(names) // COLUMNS)
    # Not pyplot's: it keeps every figure, and looks for a screen.
    figure = NewFigure(figsize=(3 * COLUMNS, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    arviz.plot_bpv(data, kind="u_value", var_names=names, ax=axes[: len(names)], textsize=9)
    for axis, name in zip(axes, names, strict=False):
        axis.set(title=name, xlabel="u-value", yticks=[])
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    return figure


def _differences(data: Any, names: list[str]) -> Figure:
    from matplotlib import pyplot

    arviz: Any = import_module("arviz")
    rows, columns = -(-len(names) // COLUMNS), min(len(names), COLUMNS)
    plot = arviz.plot_ppc_pit(
        data,
        var_names=names,
        backend="matplotlib",
        visuals={"xlabel": {"text": "u-value"}},
        col_wrap=COLUMNS,
        # ArviZ's own share their axes, and the last one's limits cut off the others.
        figure_kwargs={
            "figsize": (3 * columns, 2.4 * rows),
            "layout": "constrained",
            "sharex": False,
            "sharey": False,
        },
    )
    figure = plot.viz["figure"].item()
    pyplot.close(figure)
    axes = figure.axes[: len(names)]
    highest = 1.1 * max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(-highest, highest)
        # The p-value lies on the curve: to the corner where a difference is smallest.
        for text in axis.texts:
            text.set(position=(0.97, 0.95), transform=axis.transAxes, ha="right", va="top")
    return figure


def populations(found: Population) -> Figure:
    """Draw the distribution of each statistic in the data and in draws of the prior."""
    from matplotlib.figure import Figure as NewFigure

    names = list(found.observed)
    extra = found.observed_classes is not None
    rows = -(-(len(names) + extra) // COLUMNS)
    figure = NewFigure(figsize=(3 * COLUMNS, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axis, name in zip(axes, names, strict=False):
        both = torch.cat([found.observed[name], found.drawn[name]])
        low, high = both.quantile(torch.tensor([0.005, 0.995])).tolist()
        edges = torch.linspace(low, high if high > low else low + 1, 40).numpy()
        for values, label in ((found.observed[name], "data"), (found.drawn[name], "prior draws")):
            axis.hist(values.numpy(), edges, density=True, histtype="step", label=label)
        axis.set(title=name, yticks=[])
    if found.observed_classes is not None and found.drawn_classes is not None:
        axis = axes[len(names)]
        for offset, counts, label in (
            (-0.2, found.observed_classes, "data"),
            (0.2, found.drawn_classes, "prior draws"),
        ):
            share = (counts / counts.sum()).tolist()
            axis.bar([i + offset for i in range(len(share))], share, 0.4, label=label)
        axis.set(title="classes", yticks=[])
    for axis in axes[len(names) + extra :]:
        axis.set_visible(False)
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def reliability_curve(found: Reliability) -> Figure:
    """Draw what share of ink pixels have in reality against their probability."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(3.6, 3.4), layout="constrained")
    axis = figure.subplots()
    held = found.count > 0
    axis.plot([0, 1], [0, 1], color="0.8", lw=1)
    axis.plot(found.predicted[held].numpy(), found.found[held].numpy(), marker=".")
    axis.set(
        xlabel="probability of ink",
        ylabel="mean of the pixels",
        title=f"calibration error {found.expected_calibration_error:.4f}",
        aspect="equal",
    )
    return figure
