"""The pictures of VAELLS: codes with the orbits of the operators, and images along them."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.plots import grid, square
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vectors import colours_of
from pyro_latents.transport import TransportOperators

# Test points that coefficients are inferred of, and the part of them that a picture reaches to.
MEASURED, QUANTILE, SMALLEST = 200, 0.75, 1e-3
POINTS, STEPS, ANCHORS = 200, 9, 4


def figures(parts: Parts) -> dict[str, Figure]:
    """Return orbits in the plane where codes have two numbers, else images along orbits."""
    if len(parts.story.x_shape) == 3:
        return {"orbits": orbits_of_images(parts)}
    if parts.model.operators.z_dim != 2:
        return {}
    figure, axis = square()
    show_orbits(axis, parts)
    return {"orbits": figure}


@torch.no_grad()
def show_orbits(axis: Axes, parts: Parts) -> None:
    """Draw the codes of test points, the anchors, and the orbits of the operators through them."""
    model, test = parts.model, parts.splits.test
    codes = model.code(test.x).cpu()
    axis.scatter(codes[:, 0].numpy(), codes[:, 1].numpy(), s=5, **colours_of(test))
    limits = axis.get_xlim(), axis.get_ylim()
    anchors = model.starts()
    reach = _reach(parts)
    for m in range(len(reach)):
        for i, path in enumerate(_orbits(model.operators, m, reach, anchors, POINTS)):
            label = f"orbit of operator {m + 1}" if i == 0 else None
            axis.plot(*path.T.cpu().numpy(), color=f"C{m + 1}", lw=0.8, label=label)
    axis.plot(*anchors.T.cpu().numpy(), "C3X", ms=7, ls="", label="anchors")
    axis.set(xlim=limits[0], ylim=limits[1], xlabel="$z_1$", ylabel="$z_2$")
    axis.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


@torch.no_grad()
def orbits_of_images(parts: Parts) -> Figure:
    """Draw anchors, by row, moved along each operator, by group of rows."""
    model, reach = parts.model, _reach(parts)
    starts = model.starts()[:: max(1, len(model.starts()) // ANCHORS)][:ANCHORS]
    rows = []
    for m in range(len(reach)):
        paths = _orbits(model.operators, m, reach, starts, STEPS)
        rows.append(model.observation(paths).mean)
    sides = ", ".join(f"{size:.2g}" for size in reach.tolist())
    return grid(
        torch.cat(rows),
        "anchors" if len(rows) == 1 else f"anchors, under each of {len(rows)} operators",
        f"coefficient from -c to c, 0 in the middle; c = {sides}",
        "images along the orbits of the operators",
    )


def _orbits(
    operators: TransportOperators, m: int, reach: Tensor, starts: Tensor, points: int
) -> Tensor:
    """Where starts `n z_dim` are moved by one of the operators: `n points z_dim`."""
    c = starts.new_zeros(points, len(operators.psi))
    c[:, m] = torch.linspace(-1, 1, points, device=c.device) * reach[m]
    return operators(c, starts[:, None])


def _reach(parts: Parts) -> Tensor:
    """How far test points are from their anchors along each operator, but for the furthest."""
    model, x = parts.model, parts.splits.test.x[:MEASURED]
    c = model.best_path(model.starts(), model.code(x))["c"]
    return c.abs().quantile(QUANTILE, dim=0).clamp_min(SMALLEST)
