"""Pictures of codes in the plane: what the experiments on synthetic manifolds draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.transport import transport

SIDE = 2.6  # of a panel, in inches


def embeddings(codes: Mapping[str, Tensor], color: Tensor) -> Figure:
    """Draw codes in the plane, `batch 2`, by the name of their model, and what colours them."""
    figure, axes = _panels(len(codes))
    for axis, (name, points) in zip(axes, codes.items(), strict=True):
        _scatter(axis, points, color)
        axis.set_title(name, fontsize=9)
    return figure


def operators_in_the_plane(
    psi: Tensor,
    codes: Tensor,
    color: Tensor,
    anchors: Tensor,
    draws: tuple[Tensor, Tensor],
    paths: Sequence[Tensor],
) -> Figure:
    """Draw the orbit of each operator over the codes, draws of the prior, and inferred paths.

    Args:
        psi: The operators, of shape `num_operators 2 2`.
        codes: Codes in the plane, of shape `batch 2`.
        color: What colours them.
        anchors: Encoded anchors, of shape `num_anchors 2`.
        draws: Draws of the prior and what colours them.
        paths: Paths between two codes, each of shape `steps 2`.
    """
    figure, axes = _panels(len(psi) + 2)
    reach = 1.3 * float(codes.abs().max())
    for m, axis in enumerate(axes[: len(psi)]):
        _scatter(axis, codes, color)
        for begin in codes[torch.linspace(0, len(codes) - 1, 3).long()]:
            axis.plot(*orbit(psi[m : m + 1], begin, reach).T, color="black", linewidth=0.8)
        axis.set_title(f"operator {m + 1}: orbits", fontsize=9)
    _scatter(axes[-2], *draws)
    axes[-2].plot(*anchors.T, "k*", markersize=7)
    axes[-2].set_title("draws of the prior", fontsize=9)
    _scatter(axes[-1], codes, torch.full_like(color, 0.8), "gray")
    for path in paths:
        axes[-1].plot(*path.T, linewidth=1.2)
        axes[-1].plot(*path[[0, -1]].T, "k.", markersize=5)
    axes[-1].set_title("inferred paths", fontsize=9)
    for axis in axes:
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
    return figure


def bars(values: Tensor, title: str) -> Figure:
    """Draw one bar a value."""
    figure = Figure(figsize=(SIDE, SIDE), layout="constrained")
    axis = figure.subplots()
    axis.bar(range(1, len(values) + 1), values.tolist(), color="black")
    axis.set_title(title, fontsize=9)
    return figure


def orbit(psi: Tensor, begin: Tensor, reach: float) -> Tensor:
    """Where one operator moves a point, to both sides, while it stays in reach."""
    norm = torch.linalg.matrix_norm(psi[0], 2).clamp_min(1e-12)
    c = torch.linspace(-10, 10, 400)[:, None] / norm
    points = transport(psi, c.to(psi), begin)
    inside = points.abs().amax(1) < 2 * reach
    return torch.where(inside[:, None], points, torch.nan)


def _scatter(axis: Axes, points: Tensor, color: Tensor, colors: str = "viridis") -> None:
    axis.scatter(points[:, 0], points[:, 1], c=color, s=3, cmap=colors, linewidths=0)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Square panels in a row, without axes."""
    # Not by `pyplot`: it keeps every figure, and looks for a screen.
    figure = Figure(figsize=(SIDE * count, SIDE), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.set_axis_off()
        axis.set_aspect("equal", adjustable="datalim")
    return figure, axes
