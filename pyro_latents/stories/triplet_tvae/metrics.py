"""What the codes of single images are measured by, and what the predictive check hides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.checks.splits import HonestSplit, Unseen
from pyro_latents.data.batches import BatchMaker
from pyro_latents.evaluation.codes import codes
from pyro_latents.evaluation.knn import knn_accuracy
from pyro_latents.guides.refined import Refined
from pyro_latents.guides.triplet_tvae import TripletGuide
from pyro_latents.models.triplet_tvae import SeveralViewsTVAE, TripletTVAE
from pyro_latents.programs import Centred, centre
from pyro_latents.stories.story import Parts
from pyro_latents.stories.transformation import Transformation
from pyro_latents.stories.triplet_tvae.batches import Framed, shrunken

# Codes that a nearest-neighbour metric learns from: more of them cost much and change little.
KNN_CODES = 20_000
# Of the guess at a hidden view, enough for it to settle: of test images of MNIST under a trained
# model, the view has -481 nats from a guess without rounds, -352 after three and -315 with
# refinement on top.
ROUNDS = 3
# Steps as large as codes are wide: they start further from where they belong than usual.
STEPS, RATE = 50, 0.1


def image_codes(guide: Any, x: Tensor) -> Tensor:
    """Return the codes `batch z_dim` of images `batch channels height width` by themselves.

    They are the means, or the draws of a flow, of `q(z0 | x)` in the guide of a triplet TVAE or
    of VAE+, and of `q(z | x)` in that of a VAE.
    """
    return codes(guide.image_guide() if hasattr(guide, "image_guide") else guide, x)


def neighbours(parts: Parts, test: Framed) -> dict[str, float]:
    """Return ``knn_accuracy`` of test images, by 5 nearest neighbours among training images.

    It is in per cent; without labels nothing is returned.
    """
    train = parts.splits.train.take(slice(KNN_CODES)).to(test.examples.device)
    if train.y is None or test.examples.y is None:
        return {}
    shrink = test.ranges.shrink
    known, asked = (
        image_codes(parts.guide, shrunken(part.x, shrink)) for part in (train, test.examples)
    )
    return {"knn_accuracy": knn_accuracy(known, train.y, asked, test.examples.y)}


def latent_map(model: TripletTVAE, guide: TripletGuide) -> Transformation:
    """Return the transformation of images by `T`.

    It is inferred from a view and the view under the inverse; where every view has a
    transformation of its own, from an image and its view.
    """
    apart = isinstance(model, SeveralViewsTVAE)

    def infer(first: Tensor, second: Tensor) -> Tensor:
        codes = image_codes(guide, first), image_codes(guide, second)
        return centre(guide.transformation_posterior(*codes))

    def apply(x: Tensor, T: Tensor | None) -> Tensor:
        z = image_codes(guide, x)
        return model.render(z if T is None else model.transformation(z, T)).mean

    shown_by = ("an image", "its view") if apart else ("a view", "the view under the inverse")
    return Transformation("T", model.transformation.parameter_dim, shown_by, infer, apply)


def hidden_view(model: TripletTVAE, guide: Callable, batches: BatchMaker) -> HonestSplit:
    """Return the split in which the last view is hidden.

    The codes of what is seen and `T` are inferred by refinement on the model without the hidden
    view. The guide is amortised for all views; it starts the refinement with a guess in the place
    of the hidden one: the image itself, then thrice the view that the model makes of what was
    inferred with the guess before. The hidden view is drawn by the model, from `r(z, T^-1)`.
    Where every view has a transformation of its own, that of the hidden one is the prior's. The
    model has noise in its transitions; the batches are ``(x, x1, ..., xV)``.
    """
    last, apart = model.num_views, isinstance(model, SeveralViewsTVAE)
    unseen = Unseen([f"x{last}", f"z{last}", f"T{last}"])

    def guessing(x: Tensor, *views: Tensor) -> dict[str, Tensor]:
        guess, seen = x, views[:-1]
        # Neither plates nor traces of the caller are for these runs.
        with torch.no_grad(), poutine.block(), Centred():
            for _ in range(0 if apart else ROUNDS):
                found: Any = poutine.trace(guide).get_trace(x, *seen, guess).nodes
                back = model.transformation.inverse(found["T"]["value"])
                guess = model.render(model.transformation(found["z0"]["value"], back)).mean
        return guide(x, *seen, guess)

    refined = Refined(unseen(model), unseen(guessing), steps=STEPS, learning_rate=RATE).eval()
    check = "last view given others" if apart else "third member given two"
    return HonestSplit(check, model, refined, batches, site=f"x{last}")
