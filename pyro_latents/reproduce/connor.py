"""The synthetic manifolds of Connor et al. (2020): figures 2, 3, 4, 7, 8 and 9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.programs import local_parameters
from pyro_latents.reproduce.experiment import Budget, Context, Result, experiment, labels
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.metrics import (
    measure,
    of_circles,
    of_rotation,
    rank_correlation,
    spiral_length,
)
from pyro_latents.transport import transport

BASELINES = {"VAE": "vae", "hyperspherical VAE": "hyperspherical-vae", "VampPrior VAE": "vamp-vae"}
DRAWS, PATHS, PATH_STEPS = 600, 2, 60
# Of the figure's draws, wider than in training, as in the authors' runs.
FIGURE_RATE, FIGURE_NOISE = {"swiss-roll": 0.05, "circles": 0.1}, 0.03
SIDE = 2.6  # of a panel, in inches
# The synthetic manifolds are small: the paper's 3,000 to 4,000 steps are minutes as well.
BUDGETS = (Budget(name="quick", steps=1_000), Budget(name="hours"), Budget(name="paper"))


@experiment("connor-swiss-roll", BUDGETS, takes=())
def swiss_roll(context: Context) -> Result:
    """Codes of a swiss roll under four models, and paths along it (figures 2 and 3)."""
    trained = _train(context, "swiss-roll")
    parts = trained["VAELLS"]
    test = parts.splits.test
    position = spiral_length(test.extras["position"])
    metrics = measure(parts, parts.batches("test"), 1)
    best = max(range(4), key=lambda k: metrics[f"path_correlation_{k}"])
    path, line = "VAELLS, path from anchor", "VAELLS, straight line from anchor"
    rows = [
        [f"{path} 1", metrics["path_correlation_0"]],
        [f"{path} {best + 1}", metrics[f"path_correlation_{best}"]],
        [f"{line} {best + 1}", metrics[f"euclidean_correlation_{best}"]],
    ]
    with torch.no_grad():
        anchor = parts.model.starts()[best]
    nearest = int((encoded(parts, test.x) - anchor).norm(dim=1).argmin())
    origin = int((position - position[nearest]).abs().argmin())
    for name in BASELINES:
        codes = encoded(trained[name], test.x)
        distance = (codes - codes[origin]).norm(dim=1)
        along = (position - position[origin]).abs()
        rows.append([f"{name}, straight line from that point", rank_correlation(distance, along)])
    return Result(
        title="Rank correlation of a distance between codes with the distance along the roll",
        columns=["distance", "Spearman's correlation"],
        rows=rows,
        settings=_settings(trained),
        figures=_pictures(context, trained, test.extras["position"]),
        notes=[
            "Paths are inferred from one anchor to every test point. Anchor 1 is the innermost. "
            "The paper has pictures only."
        ],
    )


@experiment("connor-circles", BUDGETS, takes=())
def circles(context: Context) -> Result:
    """Codes of two concentric circles under four models (figures 4, 7, 8 and 9)."""
    trained = _train(context, "circles")
    parts = trained["VAELLS"]
    x, y = parts.splits.test.x, labels(parts.splits.test)
    psi = parts.model.operators.psi.detach()
    along = of_rotation(psi, encoded(parts, x), y)
    paths = {"VAELLS": [along.get(f"circle_{label}_from_path") for label in (0, 1)]}
    rows = [
        [name, *of_circles(encoded(each, x), y).values(), *paths.get(name, [None, None])]
        for name, each in trained.items()
    ]
    magnitudes = bars(torch.linalg.matrix_norm(psi), "magnitude of each operator")
    distances = ["inner, distance", "outer, distance", "told apart"]
    return Result(
        title="Codes of two circles: distance from an orbit in per cent, and per cent told apart",
        columns=[
            "model",
            *distances,
            *(f"{c}, from the learned path" for c in ("inner", "outer")),
        ],
        rows=rows,
        settings=_settings(trained),
        figures=[
            *_pictures(context, trained, y.float()),
            context.save(magnitudes, "connor-circles-magnitudes"),
        ],
        notes=[
            "Distances are the largest of a code from the ellipse around zero that fits the codes "
            "of its circle best, in per cent of their mean length; the learned path is one of the "
            "learned operator that fits both circles best. The paper has pictures only."
        ],
    )


def encoded(parts: Parts, x: Tensor) -> Tensor:
    """The posterior's mode of each data point's code, which is on the sphere where codes are."""
    with torch.no_grad(), local_parameters(parts.model, parts.guide):
        return parts.guide.posterior(x)["z"].mode.cpu()


def _train(context: Context, data: str) -> dict[str, Parts]:
    """The trained models by name, on the processor, where pictures are drawn."""
    trained = {}
    for name, story in {**BASELINES, "VAELLS": "vaells"}.items():
        job = context.job(f"{story}-{data}", f"{story} {data}")
        trained[name] = job.train(progress=True).parts.to("cpu")
    return trained


def _pictures(context: Context, trained: dict[str, Parts], color: Tensor) -> list[Path]:
    parts = trained["VAELLS"]
    data, model, test = parts.story.data, parts.model, parts.splits.test
    side_by_side = {"truth": test.extras["latent"]}
    side_by_side |= {name: encoded(each, test.x) for name, each in trained.items()}
    codes, psi = side_by_side["VAELLS"], model.operators.psi.detach()
    generator = torch.Generator().manual_seed(context.seed)
    with torch.no_grad():
        anchors = model.starts()
        k = torch.randint(len(anchors), (DRAWS,), generator=generator)
        uniform = torch.rand(DRAWS, len(psi), generator=generator) - 0.5
        c = -uniform.sign() * torch.log1p(-2 * uniform.abs()) / FIGURE_RATE[data]
        noise = FIGURE_NOISE * torch.randn(DRAWS, 2, generator=generator)
        draws = transport(psi, c, anchors[k]) + noise
        paths = _paths(parts, codes)
    operators = operators_in_the_plane(psi, codes, color, anchors, (draws, k), paths)
    name = f"connor-{data}"
    return [
        context.save(embeddings(side_by_side, color), f"{name}-embeddings"),
        context.save(operators, f"{name}-operators"),
    ]


def _paths(parts: Parts, codes: Tensor) -> list[Tensor]:
    """Inferred paths between pairs of test points, of the same circle if there are circles."""
    test, model = parts.splits.test, parts.model
    y = test.y if test.y is not None else torch.zeros(len(test))
    order, kinds = test.extras["position"].argsort(), y.unique()
    paths = []
    for pair in range(PATHS):
        rows = order[y[order] == kinds[pair % len(kinds)]]
        ends = rows[torch.tensor([0.1 + 0.3 * pair, 0.6 + 0.3 * pair]).mul(len(rows) - 1).long()]
        start, end = codes[ends]
        c, _ = model.operators.infer(start[None], end[None], model.inference_weight)
        t = torch.linspace(0, 1, PATH_STEPS)[:, None]
        paths.append(transport(model.operators.psi.detach(), t * c, start))
    return paths


def _settings(trained: dict[str, Parts]) -> dict[str, Any]:
    settings = {name: asdict(parts.story) for name, parts in trained.items()}
    return {"provenance": trained["VAELLS"].splits.provenance, **settings}


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
