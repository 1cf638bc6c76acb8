"""Pictures of a check, by ArviZ where it has them."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_latents.checks.arviz_io import is_data_tree
from pyro_latents.checks.pixels import Reliability
from pyro_latents.checks.population import Population

COLUMNS = 5
# Two u-values no further apart than this have no density to draw.
SAME = 1e-9


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
        # Untyped: a type checker sees one major of ArviZ, and the other has not these plots.
        draw = _differences if is_data_tree() else _densities
        return draw(import_module("arviz"), data, names)


def _densities(arviz: Any, data: Any, names: list[str]) -> Figure:
    figure, axes = _grid(len(names))
    arviz.plot_bpv(data, kind="u_value", var_names=names, ax=axes, textsize=9)
    for axis, name in zip(axes, names, strict=True):
        # A little beyond 0 and 1: of a statistic that fails, the curve lies on the frame.
        axis.set(title=name, xlabel="u-value", xlim=(-0.03, 1.03), yticks=[])
        _say_where_constant(axis, data, name)
    return figure


def _say_where_constant(axis: Axes, data: Any, name: str) -> None:
    """Draw the one u-value that all data points have, of which there is no density."""
    observed = data["observed_data"][name].values
    replicated = data["posterior_predictive"][name].values
    below, ties = (replicated < observed).mean((0, 1)), (replicated == observed).mean((0, 1))
    u = below + ties / 2
    if u.max() - u.min() > SAME:
        return
    low, high = axis.get_ylim()
    # As high as the frame: all points are at one place.
    axis.bar(u.mean(), high - low, width=0.03, bottom=low, color="C3")
    side = {0.0: "below", 1.0: "above"}.get(float(u.mean()), "level with")
    words = f"all {len(u)} points are {side}\nall of their replicates"
    axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", fontsize=8)
    axis.set_ylim(low, high)


def _differences(arviz: Any, data: Any, names: list[str]) -> Figure:
    from matplotlib import pyplot

    size = 3 * min(len(names), COLUMNS), 2.4 * -(-len(names) // COLUMNS)
    # ArviZ's own share their axes, and the last one's limits cut off the others.
    apart = {"sharex": False, "sharey": False}
    plot = arviz.plot_ppc_pit(
        data,
        var_names=names,
        backend="matplotlib",
        visuals={"xlabel": {"text": "u-value"}},
        col_wrap=COLUMNS,
        figure_kwargs={"figsize": size, "layout": "constrained", **apart},
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
    names = [*found.observed, *(["classes"] if found.classes else [])]
    figure, axes = _grid(len(names))
    for axis, name in zip(axes, names, strict=True):
        axis.set(title=name, yticks=[])
    for axis, (name, observed) in zip(axes, found.observed.items(), strict=False):
        both = torch.cat([observed, found.drawn[name]])
        low, high = both.quantile(torch.tensor([0.005, 0.995])).tolist()
        edges = torch.linspace(low, high if high > low else low + 1, 40).tolist()
        for values, label in ((observed, "data"), (found.drawn[name], "prior draws")):
            axis.hist(values.numpy(), edges, density=True, histtype="step", label=label)
    for offset, label, counts in zip(
        (-0.2, 0.2), ("data", "prior draws"), found.classes or (), strict=False
    ):
        share = (counts / counts.sum()).tolist()
        axes[-1].bar([i + offset for i in range(len(share))], share, 0.4, label=label)
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def reliability_curve(found: Reliability) -> Figure:
    """Draw what share of ink pixels have in reality against their probability."""
    figure = Figure(figsize=(3.6, 3.4), layout="constrained")
    axis = figure.subplots()
    held = found.count > 0
    axis.plot([0, 1], [0, 1], color="0.8", lw=1)
    axis.plot(found.predicted[held].numpy(), found.found[held].numpy(), marker=".")
    axis.set(
        xlabel="probability of ink",
        ylabel="mean of the pixels",
        title=f"calibration error {100 * found.expected_calibration_error:.2f} %",
        aspect="equal",
    )
    return figure


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    """A picture of so many small axes; not pyplot's, which keeps it and looks for a screen."""
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 2.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]
