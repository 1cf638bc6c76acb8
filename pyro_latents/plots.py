"""Figures from results; nothing is computed here.

Without `pyplot`, which keeps every figure and looks for a screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_latents.files import write_atomically

INCHES_PER_IMAGE = 0.6
# What is left of the ink of a part that is only there to say which one it is.
PALE = 0.35


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
        show_grid(axis, images[None])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def half_rows(rows: Mapping[str, Tensor], seam: int, given: str) -> Figure:
    """Draw rows of images of which one half was given, with the seam and what the halves are.

    Args:
        rows: As of `image_rows`.
        seam: The first column of pixels that was hidden.
        given: The name of the row in which the hidden half is what really was there; in the
            others the given half is shown pale, as it is the same for all.
    """
    whole = rows[given].detach().cpu()
    shown = {name: images.detach().cpu().clone() for name, images in rows.items()}
    for name, images in shown.items():
        if name != given:
            images[..., :seam] = PALE * whole[..., :seam]
    figure = image_rows(shown)
    width = whole.shape[-1]
    for axis in figure.axes:
        for column in range(len(whole)):
            axis.axvline(column * width + seam - 0.5, color="C3", lw=0.8)
    figure.axes[0].set_title(
        "left of the red seam: given, pale where it is repeated; right of it: hidden",
        fontsize="small",
    )
    return figure


def show_grid(axis: Axes, images: Tensor, title: str = "", names: Sequence[str] = ()) -> None:
    """Draw images, `rows columns channels height width` in [0, 1], as one without gaps.

    Rows may have names, which stand at the left.
    """
    height = images.shape[-2]
    images = images.detach().cpu().clamp(0, 1)
    whole = images.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    # Ink on paper reads better than light on black.
    shown = 1 - whole[0] if len(whole) == 1 else whole.permute(1, 2, 0)
    axis.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xticks=[], title=title)
    axis.set_yticks([height * (i + 0.5) for i in range(len(names))], names)
    axis.tick_params(left=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def grid(images: Tensor, rows: str, columns: str, title: str = "") -> Figure:
    """Draw a grid of images, `rows columns channels height width`, and say what its sides are."""
    height, width = images.shape[:2]
    size = INCHES_PER_IMAGE * width + 0.6, INCHES_PER_IMAGE * height + 0.7
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    show_grid(axis, images)
    axis.set(xlabel=columns, ylabel=rows)
    # A title may be wider than the picture beneath it.
    figure.suptitle(title, fontsize="medium")
    return figure


def square() -> tuple[Figure, Axes]:
    """Return a picture with one square panel."""
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.set(box_aspect=1)
    return figure, axis


def plane(points: Tensor, of: Tensor) -> Tensor:
    """Return two coordinates of points `n dim`: they themselves, or two principal components.

    The components are those of other points, `m dim`.
    """
    if points.shape[-1] <= 2:
        return torch.nn.functional.pad(points, (0, 2 - points.shape[-1]))
    centre = of.mean(0)
    axes = torch.linalg.svd(of - centre, full_matrices=False).Vh[:2]
    return (points - centre) @ axes.T


def learning_curve(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Draw the losses of the rows of a run's history over its epochs, in nats per data point."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    for column, name in (("loss", "training"), ("validation_loss", "validation")):
        points = [(int(row["epoch"]), float(row[column])) for row in rows if row[column]]
        if points:
            axis.plot(*zip(*points, strict=True), label=name, marker="." if len(rows) < 9 else "")
    # From zero on, so that a single epoch has a place too.
    axis.set(xlabel="epoch", ylabel="loss, nats per data point", xlim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.legend(frameon=False)
    return figure


def dots(
    groups: Mapping[str, Sequence[float]],
    labels: Sequence[str],
    ylabel: str,
    *,
    differences: Mapping[str, Sequence[tuple[float, float]]],
) -> Figure:
    """Draw groups of dots by the name of their kind, one above each label.

    Beside them are the differences of all from the first, with the half-lengths of their bars.
    """
    figure = Figure(figsize=(3 + 2.2 * len(labels), 3), layout="constrained")
    bare = {name: [(height, 0.0) for height in heights] for name, heights in groups.items()}
    for axis, values in zip(figure.subplots(1, 2), (bare, differences), strict=True):
        for number, (name, bars) in enumerate(values.items()):
            shift = 0.12 * (number - (len(values) - 1) / 2)
            places = [i + shift for i in range(len(labels))]
            heights, lengths = zip(*bars, strict=True)
            axis.errorbar(places, heights, lengths, fmt="o", capsize=3, label=name)
        axis.set(xlim=(-0.5, len(labels) - 0.5), ylabel=ylabel)
        axis.set_xticks(range(len(labels)), labels)
        axis.grid(axis="y", alpha=0.3)
    figure.axes[0].legend(
        frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=len(groups)
    )
    figure.axes[1].set_ylabel(f"differences from {labels[0]}, two standard errors")
    return figure


def rank_ecdfs(
    ranks: Mapping[str, Tensor], bands: Mapping[str, tuple[Tensor, Tensor, Tensor]]
) -> Figure:
    """Draw how far the distribution of each coordinate's ranks is from the uniform one.

    Ranks are in (0, 1), of shape `data_points coordinates` for each site; a band has points and
    the ends between which all coordinates of a calibrated guide stay.
    """
    figure = Figure(figsize=(3.6 * len(ranks), 3), layout="constrained")
    for axis, (name, values) in zip(
        figure.subplots(1, len(ranks), squeeze=False)[0], ranks.items(), strict=True
    ):
        count, coordinates = values.shape
        grid = torch.linspace(0, 1, 200)
        for column in values.cpu().float().T:
            ecdf = torch.searchsorted(column.sort().values, grid, right=True) / count
            axis.plot(grid, ecdf - grid, color="C0", alpha=max(0.25, 1 / coordinates), lw=1)
        points, low, high = bands[name]
        axis.fill_between(points, low - points, high - points, color="0.85", zorder=0)
        axis.set(title=name, xlabel="rank of the truth", xlim=(0, 1))
    figure.axes[0].set_ylabel("ECDF - uniform")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a picture, whole and without empty margins; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Long names beside rows of images would else be cut off.
    options: dict[str, Any] = {
        "format": path.suffix.removeprefix("."),
        "dpi": 150,
        "bbox_inches": "tight",
    }
    write_atomically(path, lambda file: figure.savefig(file, **options))
    return path
