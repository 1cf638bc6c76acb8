"""Whether it is the same to turn an image and to turn what a model makes of it."""

from __future__ import annotations

from collections.abc import Callable
from math import radians
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.checks.statistics import Statistic
from pyro_latents.data.affine import rotate
from pyro_latents.programs import Centred, evaluation_mode, local_parameters

# Images in memory at a time.
ROWS = 500


def central_reconstructions(model: Callable, guide: Callable, x: Tensor) -> Tensor:
    """Return the means of a model's site ``x`` at the centres of the guide, `batch *x_shape`."""
    with torch.no_grad(), local_parameters(model, guide), evaluation_mode(model, guide):
        found = poutine.trace(Centred()(guide)).get_trace(x)
        replayed = Centred()(poutine.replay(model, found))
        likelihood: Any = poutine.trace(replayed).get_trace(x).nodes["x"]["fn"]
        return likelihood.mean


def equivariance_residual(model: Callable, guide: Callable, *, degrees: float = 20.0) -> Statistic:
    r"""Return the statistic of how far a reconstruction is from turning along with its image.

    .. math:: \overline{|R(T x) - T R(x)|}

    with :math:`T` a turn and :math:`R` the reconstruction at the centre of the guide: the mean
    over the pixels, zero if it turns as the image does. Each value costs two reconstructions.
    Model and guide are of single images, and the angle is counter-clockwise.
    """

    def residual(x: Tensor) -> Tensor:
        parts = x.reshape(-1, *x.shape[-3:]).split(ROWS)
        return torch.cat([of_part(part) for part in parts]).reshape(x.shape[:-3])

    def of_part(x: Tensor) -> Tensor:
        angle = x.new_full((len(x),), radians(degrees))
        before = central_reconstructions(model, guide, rotate(x, angle))
        after = rotate(central_reconstructions(model, guide, x), angle)
        return (before - after).abs().mean((-3, -2, -1))

    meaning = f"difference of turning by {degrees:g} degrees before the model and after it"
    return Statistic(residual, meaning, whole=True)
