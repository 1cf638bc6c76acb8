"""Draw the picture of the README: each of the four stories as what its latent variables do.

    python benchmarks/front_page.py TRIPLET VAELLS EQUIVAE DTVAE

The four runs are those of ``pyro-latents reproduce giannone-figure3`` (with indirect views),
``connor-swiss-roll``, ``feige-table1`` and ``vive-rotated`` (DTVAE with turns).
"""

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.plots import save
from pyro_latents.reproduce.connor import encoded
from pyro_latents.reproduce.feige_figures import equivariant
from pyro_latents.reproduce.giannone import transferred
from pyro_latents.reproduce.vive import reference
from pyro_latents.runs.recipe import Recipe, Run
from pyro_latents.transport import transport

PICTURE = Path(__file__).resolve().parent.parent / "tutorials" / "images" / "four-stories.png"
SIDE = 6  # images a side of a panel
SOURCE, ANGLE = 2, 35.0  # the test image that is turned to both sides, and how far
TURNS = torch.linspace(-150, 150, SIDE)


def triplet(axis: Axes, recipe: Recipe) -> None:
    """The transformation of one triplet, applied to other images."""
    x = recipe.splits.test.x
    angle = torch.tensor([ANGLE]).deg2rad()
    source, others = x[SOURCE : SOURCE + 1], x[SOURCE + 1 : SOURCE + SIDE]
    x1, x2 = (rotate(source, sign * angle) for sign in (1, -1))
    found = transferred(recipe, x1.expand_as(others), x2.expand_as(others), others)
    rows = [torch.cat([first, part]) for first, part in zip((source, x1, x2), found, strict=True)]
    show(axis, torch.stack(rows), "Triplet TVAE: $T$ of the first column,\napplied to the others")
    axis.axvline(x.shape[-1] - 0.5, color="C3", lw=1)


def vaells(axis: Axes, recipe: Recipe) -> None:
    """Codes of the swiss roll, and the orbits of the learned operator."""
    test = recipe.splits.test
    codes, psi = encoded(recipe, test.x), recipe.model.operators.psi.detach()
    axis.scatter(*codes.T.numpy(), c=test.extras["position"].numpy(), s=5, cmap="viridis")
    with torch.no_grad():
        anchors = recipe.model.starts()
    reach = torch.linspace(-30, 30, 200)[:, None]
    limits = axis.get_xlim(), axis.get_ylim()
    for anchor in anchors:
        path = transport(psi, reach, anchor.expand(len(reach), -1))
        axis.plot(*path.T.numpy(), color="0.4", lw=0.8)
    axis.plot(*anchors.T.numpy(), "C3X", ms=7)
    axis.set(xlim=limits[0], ylim=limits[1], xticks=[], yticks=[], box_aspect=1)
    axis.set_title("VAELLS: codes of a swiss roll,\nanchors, and their orbits")


def equivae(axis: Axes, recipe: Recipe) -> None:
    """The class of a row drawn in the style of a column."""
    test = recipe.splits.test
    styles = test.take(slice(10, 10 + SIDE))
    means = recipe.model.class_means
    v = equivariant(recipe, styles, means[styles.y])
    rows = []
    for label in range(SIDE):
        r = means[label].expand(len(v), -1)
        rows.append(decoded(recipe, torch.cat([r, v], -1)))
    show(axis, torch.stack(rows), "EquiVAE: class $r$ by row,\nstyle $v$ by column")


def dtvae(axis: Axes, recipe: Recipe) -> None:
    """Turned digits and their images in the reference pose."""
    upright = recipe.splits.test.extras["upright"]
    rows: list[Tensor] = []
    for i in range(SIDE // 2):
        turned = rotate(upright[i : i + 1].expand(SIDE, -1, -1, -1), TURNS.deg2rad())
        rows += [turned, reference(recipe, turned).detach()]
    show(axis, torch.stack(rows), "DTVAE: turned digits, each\nabove its reference pose")


def decoded(recipe: Recipe, code: Tensor) -> Tensor:
    """The mean images of codes."""
    with torch.no_grad():
        return recipe.model.likelihood(recipe.model.decoder(code)).mean


def show(axis: Axes, images: Tensor, title: str) -> None:
    """Draw images of shape `rows columns 1 height width` as one, ink on paper."""
    grid = images[:, :, 0].permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    axis.imshow(1 - grid.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("triplet", "vaells", "equivae", "dtvae"):
        parser.add_argument(name, type=Path, help="folder of the run")
    given = parser.parse_args()
    torch.manual_seed(0)
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(2, 1, 1, 1))
    panels = (triplet, vaells, equivae, dtvae)
    for axis, panel in zip(axes, panels, strict=True):
        panel(axis, Run(getattr(given, panel.__name__)).recipe)
    print(save(figure, PICTURE))


if __name__ == "__main__":
    main()
