"""Figures from results; nothing is computed here.

Without `pyplot`, which keeps every figure and looks for a screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_latents.files import write_atomically

INCHES_PER_IMAGE = 0.6


def image_rows(rows: Mapping[str, Tensor]) -> Figure:
    """Draw rows of images in [0, 1], each with its name at the left.

    All are of shape `count channels height width` with one count, and 1 or 3 channels.
    """
    columns = len(next(iter(rows.values())))
    figure = Figure(
        figsize=(INCHES_PER_IMAGE * columns + 1.3, INCHES_PER_IMAGE * len(rows) + 0.1),
        layout="constrained",
    )
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axis, (name, images) in zip(axes, rows.items(), strict=True):
        strip = torch.cat(list(images.detach().cpu().clamp(0, 1)), dim=-1)
        # Ink on paper reads better than light on black.
        shown = 1 - strip[0] if len(strip) == 1 else strip.permute(1, 2, 0)
        axis.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure


def learning_curve(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Draw the losses of the rows of a run's history over its epochs, in nats per data point."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    for column, name in (("loss", "training"), ("validation_loss", "validation")):
        points = [(int(row["epoch"]), float(row[column])) for row in rows if row[column]]
        if points:
            axis.plot(*zip(*points, strict=True), label=name, marker="." if len(rows) < 9 else "")
    axis.set(xlabel="epoch", ylabel="loss, nats per data point")
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.legend(frameon=False)
    return figure


def dots(groups: Mapping[str, Sequence[float]], labels: Sequence[str], ylabel: str) -> Figure:
    """Draw groups of dots by the name of their kind, one above each label."""
    figure = Figure(figsize=(1.5 + 1.1 * len(labels), 3), layout="constrained")
    axis = figure.subplots()
    for number, (name, heights) in enumerate(groups.items()):
        shift = 0.12 * (number - (len(groups) - 1) / 2)
        axis.plot([i + shift for i in range(len(labels))], heights, "o", label=name)
    axis.set(xlim=(-0.5, len(labels) - 0.5), ylabel=ylabel)
    axis.set_xticks(range(len(labels)), labels)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def rank_ecdfs(ranks: Mapping[str, Tensor]) -> Figure:
    """Draw how far the distribution of each coordinate's ranks is from the uniform one.

    Ranks are in (0, 1), of shape `data_points coordinates` for each site. All coordinates of a
    calibrated one stay in the band with a probability of .95 (Kolmogorov-Smirnov with
    Bonferroni's correction).
    """
    from scipy.stats import kstwo

    figure = Figure(figsize=(3.6 * len(ranks), 3), layout="constrained")
    for axis, (name, values) in zip(
        figure.subplots(1, len(ranks), squeeze=False)[0], ranks.items(), strict=True
    ):
        count, coordinates = values.shape
        grid = torch.linspace(0, 1, 200)
        for column in values.cpu().float().T:
            ecdf = torch.searchsorted(column.sort().values, grid, right=True) / count
            axis.plot(grid, ecdf - grid, color="C0", alpha=max(0.25, 1 / coordinates), lw=1)
        width = kstwo.ppf(1 - 0.05 / coordinates, count)
        axis.fill_between([0, 1], -width, width, color="0.85", zorder=0)
        axis.set(title=name, xlabel="rank of the truth", xlim=(0, 1))
    figure.axes[0].set_ylabel("ECDF - uniform")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a picture, whole; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=150))
    return path
