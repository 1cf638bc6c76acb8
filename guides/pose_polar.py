r"""An angle that turns along with its image by construction, in one pass and without a search.

In polar coordinates a turn is a shift along the angle, and convolutions that are circular in it
shift along: weights :math:`w_k(x)` at angles :math:`\theta_k` turn with the image, and so does
the direction of their first moment,

.. math:: \theta(x) = \arg \sum_k w_k(x) \, e^{i \theta_k}, \qquad
          \theta(R_a x) = \theta(x) + a

up to resampling. What is learned is which direction of an image is its reference: a function of
its content that is the same for all turns of a digit, and close for digits that look alike. The
upright image is free of the turn, and with it the code and the other numbers of the pose: to tell
apart what only the turn makes different would cost nats of the code, so that the bound asks for a
reference in common.

It stands beside `pose_search.TurnSearch`, which finds the turn by trying several with the decoder.

References:
    Polar Transformer Networks (Esteves et al., 2018), https://arxiv.org/abs/1709.01889
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import Delta
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_latents.guides.pose_tvae import DTVAE

ANGLES = 32
CHANNELS = 32
# The moment of an image without a direction, beside moments of order one.
SMALLEST = 1e-6


class PolarLocaliser(nn.Module):
    """The angle of images, in radians; it grows as they turn from the x axis to the y axis.

    Args:
        x_shape: Shape of an image, `channels height width`.
    """

    rays: Tensor
    angles: Tensor

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = x_shape
        # No further out than the nearest border: beyond, a turn brings in what was not seen.
        num_radii = min(height, width) // 2
        radii = (torch.arange(num_radii) + 0.5) / num_radii
        angles = torch.arange(ANGLES) * (2 * math.pi / ANGLES)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        self.register_buffer("rays", radii[:, None, None] * directions, persistent=False)
        self.register_buffer("angles", angles, persistent=False)

        def circular(given: int, made: int) -> nn.Conv1d:
            return nn.Conv1d(given, made, 5, padding=2, padding_mode="circular")

        self.layers = nn.Sequential(
            circular(channels * num_radii, CHANNELS),
            nn.ReLU(),
            circular(CHANNELS, CHANNELS),
            nn.ReLU(),
            circular(CHANNELS, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images `batch channels height width` to angles `batch`."""
        polar = F.grid_sample(x, self.rays.expand(len(x), -1, -1, -1), align_corners=True)
        weights = self.layers(polar.flatten(1, 2)).squeeze(1)
        # The bias of the last layer is no direction: the moment leaves it out.
        across, down = weights @ self.angles.cos(), weights @ self.angles.sin()
        along = torch.where((across.abs() + down.abs()) < SMALLEST, SMALLEST, across)
        return torch.atan2(down, along)


class PolarDTVAE(DTVAE):
    """A double transformer that undoes the turn first, and then infers what is left of the pose.

    The pose is that of `Affine5`, a point mass: its angle from a `PolarLocaliser`, and from the
    image with that undone, by the family of `u`, a change of the angle, which starts at zero, the
    scales and the shifts. The arguments are those of `DTVAE` but for this one.

    Args:
        polar: The localiser of the angle.
    """

    def __init__(self, *args: Any, polar: PolarLocaliser, **options: Any) -> None:
        super().__init__(*args, **options)
        self.polar = polar

    def features(self, x: Tensor) -> Tensor:
        """Return the pose, of shape `batch 5`."""
        # The warp moves the points that are read, against the turn of what is seen.
        turn = F.pad(-self.polar(x)[:, None], (0, self.u.event_dim - 1))
        rest = self.u(self.localiser(self.upright(x, turn))).mean
        # Scales and shifts of `Affine5` follow the turn: they are those of the upright image.
        return turn + rest

    def pose_posterior(self, features: Tensor) -> TorchDistributionMixin:
        """Return the point mass."""
        return Delta(features, event_dim=1)
