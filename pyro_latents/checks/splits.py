"""Honest checks: infer from one part of a data point, and check the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor


class ObservedPart(Messenger):
    """Counts only some elements of an observation in its density.

    Args:
        seen: Booleans of the shape of one observation, true for what is seen.
        site: The observed site.
    """

    def __init__(self, seen: Tensor, site: str = "x") -> None:
        super().__init__()
        self.seen = seen
        self.site = site

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.site and msg["is_observed"]:
            fn = msg["fn"]
            msg["fn"] = fn.base_dist.mask(self.seen).to_event(len(fn.event_shape))


def left_half(x_shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return which pixels are in the left half of images of shape `channels height width`."""
    seen = torch.zeros(x_shape, dtype=torch.bool)
    seen[..., : x_shape[-1] // 2] = True
    return seen


def seeing_only(model: Callable, seen: Tensor) -> Callable:
    """Return the model with the observation's density restricted to what is seen."""
    return lambda *args, **kwargs: _run_seeing(model, seen, args, kwargs)


def _run_seeing(model: Callable, seen: Tensor, args: tuple, kwargs: dict) -> Any:
    with ObservedPart(seen.to(args[0].device)):
        return model(*args, **kwargs)


def blanked(guide: Callable, seen: Tensor) -> Callable:
    """Return the guide given an image that is blank where it is not seen."""
    return lambda x, *args, **kwargs: guide(x * seen.to(x), *args, **kwargs)


def right_half_of(statistic: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the statistic of the right half of images."""
    return lambda x: statistic(x[..., x.shape[-1] // 2 :])
