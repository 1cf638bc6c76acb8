"""The last view of an image, given the image and the other views."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.checks.splits import HonestSplit, Unseen
from pyro_latents.data.batches import BatchMaker
from pyro_latents.guides.refined import Refined
from pyro_latents.models.triplet_tvae import SeveralViewsTVAE, TripletTVAE
from pyro_latents.programs import Centred

# Enough for the guess to settle: of test images of MNIST under a trained model, the hidden view
# has -481 nats from a guess without rounds, -352 after three and -315 with refinement on top.
ROUNDS = 3
# Steps as large as codes are wide: they start further from where they belong than usual.
STEPS, RATE = 50, 0.1


def hidden_view(model: TripletTVAE, guide: Callable, batches: BatchMaker) -> HonestSplit:
    """Return the split in which the last view is hidden.

    The codes of what is seen and `T` are inferred by refinement on the model without the hidden
    view. The guide is amortised for all views; it starts the refinement with a guess in the place
    of the hidden one: the image itself, then thrice the view that the model makes of what was
    inferred with the guess before. The hidden view is drawn by the model, from `r(z, T^-1)`.
    Where every view has a transformation of its own, that of the hidden one is the prior's.

    Args:
        model: The model, with noise in its transitions.
        guide: Its guide.
        batches: The maker of batches ``(x, x1, ..., xV)``.
    """
    last = model.num_views
    unseen = Unseen([f"x{last}", f"z{last}", f"T{last}"])

    def guessing(x: Tensor, *views: Tensor) -> dict[str, Tensor]:
        return guide(x, *views[:-1], guessed_view(model, guide, x, *views[:-1]))

    refined = Refined(unseen(model), unseen(guessing), steps=STEPS, learning_rate=RATE).eval()
    check = "last view given others"
    if not isinstance(model, SeveralViewsTVAE):
        check = "third member given two"
    return HonestSplit(check, model, refined, batches, site=f"x{last}")


@torch.no_grad()
def guessed_view(model: TripletTVAE, guide: Callable, x: Tensor, *views: Tensor) -> Tensor:
    """Return what the last view may look like, of the shape of `x`.

    Args:
        model: The model.
        guide: Its guide.
        x: Images, of shape `batch *x_shape`.
        *views: Their views without the last one.
    """
    guess = x
    if isinstance(model, SeveralViewsTVAE):
        return guess
    # Neither plates nor traces of the caller are for these runs.
    with poutine.block(), Centred():
        for _ in range(ROUNDS):
            found = guide(x, *views, guess)
            back = model.transformation.inverse(found["T"])
            guess = model.render(model.transformation(found["z0"], back)).mean
    return guess
