"""The live part of an EquiVAE: the style of a digit, given to every class."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_latents.live import Bars, Choice, Images, Live, Step
from pyro_latents.live.codes import code_sliders, inferred, measured, picture
from pyro_latents.models.equivae import joined
from pyro_latents.stories.story import Parts

# Classes in a row of their own.
CLASSES = 10


def moving_style(parts: Parts) -> Live:
    """Return the live part: class and style of a digit, and all classes in that style."""
    model, guide, test = parts.model, parts.guide, parts.splits.test
    names = [str(y) for y in range(model.num_classes)]

    def encode(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shares = guide.label_posterior(x).probs
        likeliest = (shares == shares.amax(-1, keepdim=True)).to(x.dtype)
        return shares, likeliest, inferred(guide, x)["v"]

    def image(y: Tensor, v: Tensor) -> Tensor:
        return model.likelihood(model.decoder(joined(y @ model.class_means, v))).mean

    def all_classes(v: Tensor) -> Tensor:
        return image(torch.eye(model.num_classes, device=v.device)[:CLASSES], v)

    return Live(
        "Draw something, or pick an image: the guide says of which class it is, and infers its "
        "style. Choose another class or move the style v, which all classes share.",
        [
            picture(test),
            Choice("y", "class y", names),
            code_sliders("v", "style v, standard normal", measured(guide, test.x, "v")),
        ],
        [
            Step(encode, ["x"], ["shares", "y", "v"]),
            Step(image, ["y", "v"], ["image"]),
            Step(all_classes, ["v"], ["row"]),
        ],
        [
            Images("image", "class y, style v"),
            Bars("shares", "q(y | x) of the drawn image", names),
            Images("row", "every class in the style v", captions=names[:CLASSES]),
        ],
    )
