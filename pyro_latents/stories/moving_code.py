"""The live part of every story of a code and a decoder: the code moves, the image follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_latents.data.examples import Examples
from pyro_latents.guides.refined import unrefined
from pyro_latents.live import Images, Live, Plane, Sliders, Step
from pyro_latents.live.codes import code_sliders, inferred, measured, picture
from pyro_latents.models.vae import UniformSphere
from pyro_latents.plots import plane
from pyro_latents.stories.vectors import SHOWN, colours_of


def moving_code(model: Any, guide: Any, test: Examples) -> Live:
    """Return the live part of a model with a code `z`, a ``decoder`` and a ``likelihood``.

    Args:
        model: Of data points alone, such as a `VAE`.
        guide: Of the code; of a refined one the encoder is shown.
        test: Test points.
    """
    guide = unrefined(guide)
    codes = measured(guide, test.x, "z")

    def encode(x: Tensor) -> Tensor:
        return inferred(guide, x)["z"]

    def decode(z: Tensor) -> Tensor:
        if isinstance(getattr(model, "prior", None), UniformSphere):
            z = z / z.square().sum(-1, keepdim=True).clamp_min(1e-6).sqrt()
        return model.likelihood(model.decoder(z)).mean

    if test.x.dim() != 4:
        return _points(decode, codes, test)
    return Live(
        "Draw something, or pick an image: the guide infers its code, and the model makes an "
        "image of that. Move the code, and the image follows.",
        [picture(test), code_sliders("z", "code z, standard normal", codes)],
        [Step(encode, ["x"], ["z"]), Step(decode, ["z"], ["image"])],
        [Images("image", "image made of z")],
    )


def points_in_plane(name: str, title: str, points: Tensor, test: Examples) -> Plane:
    """Return the picture of a path of points over others, those of test points."""
    colours = colours_of(test).get("c")
    if colours is not None:
        found = torch.as_tensor(colours).float()
        colours = (found - found.min()) / (found.max() - found.min()).clamp_min(1e-6)
    return Plane(name, title, points, colours)


def range_of(name: str, title: str, values: Tensor) -> Sliders:
    """Return sliders over the range of values `n dim`, which start in its middle."""
    low, high = values.amin(0), values.amax(0)
    return Sliders(name, title, low, high, (low + high) / 2, rest="to the middle")


def _points(decode: Any, codes: Tensor, test: Examples) -> Live:
    """The live part where data points are vectors."""
    test, codes = test.take(slice(SHOWN)), codes[:SHOWN]
    known = test.take(slice(len(codes)))

    def shown(z: Tensor) -> Tensor:
        return plane(decode(z), test.x)

    shows = [
        points_in_plane(
            "point", "the point that the model makes of z", plane(test.x, test.x), test
        )
    ]
    if codes.shape[-1] == 2:
        shows = [
            points_in_plane("z", "the code z, among those of test points", codes, known),
            *shows,
        ]
    return Live(
        "Move the code: the point that the model makes of it goes along, in the plane of the "
        "principal components of the test points.",
        [range_of("z", "code z", codes)],
        [Step(shown, ["z"], ["point"])],
        shows,
    )
