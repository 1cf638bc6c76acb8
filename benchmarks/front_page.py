"""Draw the picture of the README: each of the four stories as what its latent variables do.

    python benchmarks/front_page.py TRIPLET VAELLS EQUIVAE DTVAE

The four runs are those of ``pyro-latents reproduce giannone-figure3``,
``connor-swiss-roll``, ``feige-table1`` and ``vive-rotated`` (DTVAE with turns). The panels are
those that ``pyro-latents plot`` draws of any run, side by side.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from pyro_latents import zoo
from pyro_latents.plots import save
from pyro_latents.stories.equivae.figures import show_styles
from pyro_latents.stories.pose_tvae.figures import show_poses
from pyro_latents.stories.triplet_tvae.figures import show_transfer
from pyro_latents.stories.vaells.figures import show_orbits

PICTURE = Path(__file__).resolve().parent.parent / "tutorials" / "images" / "four-stories.png"
SIDE = 6  # images a side of a panel
PANELS = {
    "triplet": (
        lambda axis, parts: show_transfer(axis, parts, 2 * SIDE),
        "Triplet TVAE: $T$ of the first column,\napplied to the others",
    ),
    "vaells": (show_orbits, "VAELLS: codes of a swiss roll,\nanchors, and their orbits"),
    "equivae": (
        lambda axis, parts: show_styles(axis, parts, SIDE, SIDE),
        "EquiVAE: class $r$ by row,\nin the style $v$ of the image above",
    ),
    "dtvae": (
        lambda axis, parts: show_poses(axis, parts, SIDE),
        "DTVAE: turned digits, each\nabove its reference pose",
    ),
}


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in PANELS:
        parser.add_argument(name, type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture")
    given = parser.parse_args()
    torch.manual_seed(0)
    figure = Figure(figsize=(15, 3.4), layout="constrained")
    axes = figure.subplots(1, len(PANELS), width_ratios=(2, 1, 1, 1))
    for axis, (name, (draw, title)) in zip(axes, PANELS.items(), strict=True):
        draw(axis, zoo.open_run(getattr(given, name)).parts)
        axis.set(title=title, xticks=[], yticks=[], xlabel="", ylabel="")
        if axis.get_legend():
            axis.get_legend().remove()
    print(save(figure, given.out))


if __name__ == "__main__":
    main()
