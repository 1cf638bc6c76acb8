"""Families on the unit sphere."""

from pyro.distributions import Distribution
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from pyro_latents.distributions.von_mises_fisher import VonMisesFisher
from pyro_latents.guides.families import Family
from pyro_latents.nets.precision import in_single


class VonMisesFisherFamily(Family):
    """A von Mises-Fisher distribution: a direction and how narrow it is.

    The concentration is at least 1, as in the authors' code: near 0 the direction means nothing.
    """

    def __init__(self, in_dim: int, event_dim: int) -> None:
        super().__init__(in_dim, event_dim)
        self.head = nn.Linear(in_dim, event_dim + 1)

    def forward(self, features: Tensor) -> Distribution:
        """Return the distribution, of event shape `(event_dim,)`."""
        out = in_single(self.head(features))
        return VonMisesFisher(normalize(out[..., :-1], dim=-1), 1 + softplus(out[..., -1]))
