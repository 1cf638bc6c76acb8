r"""A point-mass pose that tries several turns of the image and keeps the best.

Turned digits have many poor local optima: an upside-down 2 is a passable 5, and a network that is
half a turn off has no gradient that would tell it. The thesis runs such a model again (appendix
A); here each image chooses among turns that are spread evenly over the circle,

.. math:: u(x) = f(x) + (2 \pi k^* / K, 0, \ldots), \qquad
          k^* = \arg\max_k \log p(x | z_k, u_k) + \log p(z_k),

at the means of the code. The choice has no gradient; the network `f` keeps its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import torch
from pyro.distributions import Delta
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor

from pyro_latents.guides.pose_tvae import PoseGuide
from pyro_latents.programs import centre


class TurnSearch(PyroModule):
    """A T-VAE or DTVAE guide with a point-mass pose, and a search over turns around it.

    Args:
        guide: The guide, with a point-mass family for `u`, whose first number is an angle in
            radians, as of `Affine5`.
        pixels: The model's `p(x | z, u)`, which scores the turns.
        num_turns: The turns K; their number multiplies the cost of the search, which needs no
            gradient.

    Raises:
        ValueError: if there is no turn to try.
    """

    def __init__(
        self,
        guide: PoseGuide,
        pixels: Callable[[Tensor, Tensor], TorchDistributionMixin],
        *,
        num_turns: int = 8,
    ) -> None:
        super().__init__()
        if num_turns < 1:
            raise ValueError(f"TurnSearch expects num_turns >= 1; got {num_turns}.")
        self.guide = guide
        self.pixels = pixels
        turns = torch.zeros(num_turns, guide.u.event_dim)
        turns[:, 0] = torch.arange(num_turns) * (2 * math.pi / num_turns)
        self.register_buffer("_turns", turns, persistent=False)

    def forward(self, x: Tensor, *, size: int = 1) -> dict[str, Tensor]:
        """Draw both sites in the plate of the data; `size` is the model's and unused."""
        with pyro.plate("data", len(x), dim=-1):
            return {name: pyro.sample(name, q) for name, q in self.posterior(x).items()}

    def posterior(self, x: Tensor) -> dict[str, TorchDistributionMixin]:
        """Return the pose's point mass and `q(z | x, u)` at it.

        Args:
            x: Of shape `batch channels height width`.
        """
        features = self.guide.features(x)
        pose = centre(self.guide.pose_posterior(features))
        u = pose + self._turns[self._best(x, features, pose)]
        return {"u": Delta(u, event_dim=1), "z": self.guide.code_posterior(x, features, u)}

    @torch.no_grad()
    def _best(self, x: Tensor, features: Tensor, pose: Tensor) -> Tensor:
        """The number of the best turn, of shape `batch`."""
        poses = pose + self._turns[:, None]
        z = centre(self.guide.code_posterior(x, features, poses))
        score = self.pixels(z, poses).log_prob(x) - 0.5 * z.square().sum(-1)
        return score.argmax(0)
