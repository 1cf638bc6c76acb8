"""The live part of VAELLS: codes move along the operators, and the image or point goes along."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_latents.live import Choice, Images, Live, Sliders, Step
from pyro_latents.live.codes import picture
from pyro_latents.plots import plane
from pyro_latents.stories.moving_code import points_in_plane
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vectors import SHOWN
from pyro_latents.transport import TransportOperators

# Other images that move along, and points of a path.
OTHERS, POINTS = 2, 40
# How far a coefficient goes: half a turn of the fastest rotation, and no more than this growth.
GROWTH = 1.5


def moving_along_operators(parts: Parts) -> Live:
    """Return the live part: coefficients move codes of images, or of points from an anchor on."""
    return _images(parts) if len(parts.story.x_shape) == 3 else _points(parts)


def coefficient_sliders(operators: TransportOperators) -> Sliders:
    """Return sliders of the coefficients, each as far as its operator's rotations close."""
    values = torch.linalg.eigvals(operators.psi)
    turn = math.pi / values.imag.abs().amax(-1).clamp_min(1e-6)
    growth = GROWTH / values.real.abs().amax(-1).clamp_min(1e-6)
    reach = torch.minimum(turn, growth)
    count = len(reach)
    labels = [f"c{m + 1}" for m in range(count)]
    return Sliders("c", "coefficients c of the operators", -reach, reach, labels=labels)


def _images(parts: Parts) -> Live:
    model = parts.model
    picked = picture(parts.splits.test)
    others = model.code(picked.examples[-OTHERS:])

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.cat([model.code(x), others])
        return z, model.observation(z).mean

    def move(z: Tensor, c: Tensor) -> Tensor:
        return model.observation(model.operators(c, z)).mean

    return Live(
        "Draw something, or pick an image: it is encoded, and the coefficients move its code "
        "along the learned operators, z = expm(c1 Ψ1 + c2 Ψ2 + ...) z0. Other images go the same "
        "way.",
        [picked, coefficient_sliders(model.operators)],
        [Step(encode, ["x"], ["z", "start"]), Step(move, ["z", "c"], ["end"])],
        [
            Images("start", "the image and others", ["decoded"]),
            Images("end", "their codes moved by c", ["decoded"]),
        ],
    )


def _points(parts: Parts) -> Live:
    model, test = parts.model, parts.splits.test.take(slice(SHOWN))
    starts, codes = model.starts(), model.code(test.x)
    part = torch.linspace(0, 1, POINTS)[:, None]

    def move(anchor: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        path = model.operators(part * c, anchor @ starts)
        return path, plane(model.observation(path).mean, test.x)

    shows = [points_in_plane("points", "what the model makes of it", plane(test.x, test.x), test)]
    if codes.shape[-1] == 2:
        shows = [points_in_plane("codes", "the path of the code", codes, test), *shows]
    return Live(
        "Choose an anchor, and move along the learned operators from there: "
        "z = expm(c1 Ψ1 + c2 Ψ2 + ...) z0.",
        [
            Choice("anchor", "anchor", [str(i + 1) for i in range(len(starts))]),
            coefficient_sliders(model.operators),
        ],
        [Step(move, ["anchor", "c"], ["codes", "points"])],
        shows,
    )
