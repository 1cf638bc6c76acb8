"""Honest checks: infer from one part of a data point, and check the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_latents.checks.equivariance import central_reconstructions
from pyro_latents.checks.predictive import binarised_like
from pyro_latents.checks.statistics import Statistic
from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Examples
from pyro_latents.guides.refined import Refined

# Right halves of test images of MNIST under a VAE have -87 nats without rounds, -70 after three
# and -74 after ten.
ROUNDS = 3


@dataclass(frozen=True)
class HonestSplit:
    """What of a data point is seen, and what is hidden and then checked.

    `predictive.replicates` draws the hidden part by ``model`` and ``guide`` and compares its
    statistics with those of the true one. The guide must not depend on what is hidden.

    Args:
        check: What is checked given what, for tables.
        model: The generative model; its site is what replicates are drawn of.
        guide: Infers from what is seen alone.
        batches: The maker of whole batches, the hidden part included.
        site: The observed site that the hidden part belongs to.
        part: Maps observations at the site to their hidden part, where that is not the whole.
    """

    check: str
    model: Callable
    guide: Callable
    batches: BatchMaker
    site: str = "x"
    part: Callable[[Tensor], Tensor] | None = None

    def statistics(self, statistics: Mapping[str, Statistic]) -> dict[str, Callable]:
        """Return those of the hidden part; of a mere part, without those of whole data points."""
        part = self.part
        if part is None:
            return dict(statistics)
        return {
            name: lambda x, statistic=statistic: statistic(part(x))
            for name, statistic in statistics.items()
            if not statistic.whole
        }


class ObservedPart(Messenger):
    """Counts of ``x`` only what is seen, by booleans of the shape of one observation."""

    def __init__(self, seen: Tensor) -> None:
        super().__init__()
        self.seen = seen

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "x" and msg["is_observed"]:
            fn = msg["fn"]
            seen = self.seen.to(msg["value"].device)
            msg["fn"] = fn.base_dist.mask(seen).to_event(len(fn.event_shape))


class Unseen(Messenger):
    """Runs some sites without their densities, and so that no guide is expected to have them.

    The other sites of a model are then those of the program without these, if nothing but them
    depends on these. Names of sites that there are not are passed over.
    """

    def __init__(self, sites: Collection[str]) -> None:
        super().__init__()
        self.sites = sites

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.sites:
            msg["mask"] = False
            msg["infer"] = {**msg["infer"], "is_auxiliary": True}


def filled(model: Callable, guide: Callable, seen: Tensor) -> Callable:
    """Return the guide given an image whose unseen part is a guess.

    The guess is blank at first, then thrice what the model makes of the image with the guess
    before: a blank half is like no image that the guide was trained on. What is ``seen`` is said
    by booleans of the shape of an image.
    """

    def guessing(x: Tensor, **options: Any) -> Any:
        visible = seen.to(x.device)
        guess = x * visible
        # Neither plates nor traces of the caller are for these runs.
        with poutine.block():
            for _ in range(ROUNDS):
                guess = torch.where(visible, x, central_reconstructions(model, guide, guess))
        return guide(guess, **options)

    return guessing


def left_half(x_shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return which pixels are in the left half of images of shape `channels height width`."""
    seen = torch.zeros(x_shape, dtype=torch.bool)
    seen[..., : x_shape[-1] // 2] = True
    return seen


def right_half(x: Tensor) -> Tensor:
    """Return the right half of images."""
    return x[..., x.shape[-1] // 2 :]


def half_images(
    model: Callable,
    guide: Callable,
    build_batches: Callable[[Examples], BatchMaker],
    test: Examples,
    *,
    seed: int = 0,
) -> HonestSplit:
    """Return the split into halves: infer from the left one by refinement, check the right one.

    Model and guide, where refinement starts, are of batches ``(x,)`` of images. Grey ones are
    binarised under a Bernoulli likelihood, so that what is seen and what is checked are of one
    binary image.
    """
    seen = left_half(test.shape)
    likelihood = getattr(model, "likelihood", None)
    torch.manual_seed(seed)
    x = binarised_like(test.x, likelihood(test.x)) if likelihood else test.x
    refined = Refined(ObservedPart(seen)(model), filled(model, guide, seen)).eval()
    batches = build_batches(replace(test, x=x))
    return HonestSplit("right half given left", model, refined, batches, part=right_half)


def prior_guide(model: Callable) -> Callable:
    """Return a guide that infers nothing: all latent sites are drawn from the model itself.

    What it sees is what the model is given beside its observations.
    """
    return poutine.block(
        model, hide_fn=lambda site: site["type"] != "sample" or site["is_observed"]
    )
