"""The live part of a triplet TVAE: the T of one triplet, given to other images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_latents.data.affine import rotate
from pyro_latents.guides.triplet_tvae import TripletGuide
from pyro_latents.live import Images, Live, Picture, Sliders, Step
from pyro_latents.live.codes import measured, picture
from pyro_latents.live.lowering import noise_at_its_centre
from pyro_latents.models.triplet_tvae import TripletTVAE
from pyro_latents.stories.story import Parts
from pyro_latents.stories.transformation import Transformation
from pyro_latents.stories.triplet_tvae.batches import shrunken

# Images that are given T, and the angles that views are turned by, in degrees.
OTHERS, ANGLE, FURTHEST = 5, 35.0, 60.0
# How far T goes, in standard deviations of what is inferred at the furthest angle.
DEVIATIONS = 3.0


def moving_transformation(
    parts: Parts, model: TripletTVAE, guide: TripletGuide, found: Transformation, shrink: float
) -> Live:
    """Return the live part.

    Args:
        parts: Whose test images are shown.
        model: The model.
        guide: Its guide.
        found: The transformation of images by `T`, inferred from two views.
        shrink: How much smaller images are than those of the data.
    """
    picked = picture(parts.splits.test)
    images = shrunken(picked.examples, shrink)
    encoder = guide.image_guide()
    # Zeros and ones turned are much like themselves: the images after them.
    others = measured(encoder, images[-OTHERS:], "z")

    def views(x: Tensor, angle: Tensor) -> tuple[Tensor, ...]:
        radians = angle.flatten() * (math.pi / 180)
        first, second = rotate(x, radians), rotate(x, -radians)
        return first, second, torch.cat([x, first, second])

    def decode(T: Tensor) -> Tensor:
        both = torch.stack([T, model.transformation.inverse(T)])
        moved = model.render(model.transformation(others, both)).mean
        return torch.cat([model.render(others).mean[None], moved])

    with noise_at_its_centre():
        furthest = images.new_full((1,), math.radians(FURTHEST))
        T = found.infer(rotate(images, furthest), rotate(images, -furthest))
    reach = T.abs().mean(0) + DEVIATIONS * T.std(0)
    end, start = T.new_full((1,), FURTHEST), T.new_full((1,), ANGLE)
    return Live(
        "Draw something, or pick an image, and turn it: from the view and the view under the "
        "inverse the guide infers T, which is never told that it is a turn. The model gives T, "
        "and its inverse, to other images.",
        [
            Picture("x", picked.title, images, picked.captions),
            Sliders(
                "angle",
                "how far the views are turned",
                -end,
                end,
                start,
                labels=["degrees"],
                rest="",
            ),
            Sliders("T", "transformation T", -reach, reach, rest="identity"),
        ],
        [
            Step(views, ["x", "angle"], ["x1", "x2", "triplet"]),
            Step(found.infer, ["x1", "x2"], ["T"]),
            Step(decode, ["T"], ["others"]),
        ],
        [
            Images("triplet", "the triplet", captions=["image", "view", "inverse"]),
            Images("others", "other images", ["as they are", "under T", "under its inverse"]),
        ],
    )
