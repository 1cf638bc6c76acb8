"""Variational families: conditional distributions `q(z | features)`, swappable in every guide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro.distributions import (
    Delta,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

import pyro_latents.distributions.divergences  # noqa: F401 - of the normals below
from pyro_latents.distributions.flow import FlowDistribution, import_zuko
from pyro_latents.nets.precision import in_single

# Added to every standard deviation, so that a density never becomes a spike that overflows.
MIN_SCALE = 1e-6
# Of the weights of what a family has beyond a mean-field normal.
START = 1e-2


class Family(nn.Module):
    """`q(z | features)`, the head of a guide.

    Args:
        in_dim: Size of the features.
        event_dim: Size of the latent variable.

    Implementing a family:
        - create every parameter in the constructor, so that a fresh one loads a checkpoint;
        - `forward` maps `*leading in_dim` to a distribution of batch shape `*leading` and event
          shape `(event_dim,)`, for any leading dimensions;
        - the distribution is reparameterised: gradients flow through its draws;
        - what networks compute goes through `in_single`, where mixed precision ends.
    """

    def __init__(self, in_dim: int, event_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.event_dim = event_dim


FamilyFactory = Callable[[int, int], Family]


class MeanField(Family):
    """A normal with diagonal covariance, the papers' own family."""

    def __init__(self, in_dim: int, event_dim: int) -> None:
        super().__init__(in_dim, event_dim)
        self.head = nn.Linear(in_dim, 2 * event_dim)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """Return `N(loc, diag(scale^2))` of event shape `(event_dim,)`."""
        loc, log_scale = in_single(self.head(features)).chunk(2, dim=-1)
        return Normal(loc, log_scale.exp() + MIN_SCALE).to_event(1)


class FullRank(Family):
    """A normal with a full covariance, by its Cholesky factor: correlated coordinates.

    The factor is `diag(scale) (1 + B)` with `B` below the diagonal and zero at first: it starts as
    the mean-field normal. `B` is many numbers with weak gradients, which Adam would move as fast
    as the others, so it is read off smaller features; else codes drown in noise before they
    carry anything.
    """

    _rows: Tensor
    _columns: Tensor

    def __init__(self, in_dim: int, event_dim: int) -> None:
        super().__init__(in_dim, event_dim)
        self.head = nn.Linear(in_dim, 2 * event_dim)
        self.below = nn.Linear(in_dim, event_dim * (event_dim - 1) // 2)
        nn.init.zeros_(self.below.weight)
        nn.init.zeros_(self.below.bias)
        rows, columns = torch.tril_indices(event_dim, event_dim, offset=-1)
        self.register_buffer("_rows", rows, persistent=False)
        self.register_buffer("_columns", columns, persistent=False)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """Return `N(loc, L L^T)` of event shape `(event_dim,)`."""
        loc, log_scale = in_single(self.head(features)).chunk(2, dim=-1)
        scale = log_scale.exp() + MIN_SCALE
        scale_tril = torch.diag_embed(scale)
        below = in_single(self.below(features / self.in_dim**0.5))
        scale_tril[..., self._rows, self._columns] = scale[..., self._rows] * below
        return MultivariateNormal(loc, scale_tril=scale_tril)


class LowRank(Family):
    """A normal whose covariance is diagonal plus low rank: correlations at a linear cost.

    The factor of low rank is in units of the diagonal's standard deviations, and starts small.
    """

    RANK = 2

    def __init__(self, in_dim: int, event_dim: int) -> None:
        super().__init__(in_dim, event_dim)
        self.head = nn.Linear(in_dim, 2 * event_dim)
        self.factor = nn.Linear(in_dim, self.RANK * event_dim)
        # Not zero, where a factor's gradient is zero in the mean over its draws.
        nn.init.normal_(self.factor.weight, std=START)
        nn.init.zeros_(self.factor.bias)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """Return `N(loc, diag + W W^T)` of event shape `(event_dim,)`."""
        loc, log_scale = in_single(self.head(features)).chunk(2, dim=-1)
        scale = log_scale.exp() + MIN_SCALE
        factor = in_single(self.factor(features / self.in_dim**0.5))
        factor = factor.unflatten(-1, (self.event_dim, self.RANK))
        return LowRankMultivariateNormal(loc, scale[..., None] * factor, scale.square())


class PointMass(Family):
    """A point, for maximum a posteriori estimates; its density is counted as one."""

    def __init__(self, in_dim: int, event_dim: int) -> None:
        super().__init__(in_dim, event_dim)
        self.head = nn.Linear(in_dim, event_dim)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """Return a unit point mass of event shape `(event_dim,)`."""
        return Delta(in_single(self.head(features)), event_dim=1)


class Flow(Family):
    """An inverse autoregressive flow: a posterior of any shape, fast to draw from.

    Noise goes through affine autoregressive transforms, then a location and a scale that are read
    off the features as a mean-field normal's are, so that a draw and its density take one pass.
    The transforms start near the identity: the flow is at first the mean-field normal.
    """

    TRANSFORMS = 2
    HIDDEN_DIMS = (128, 128)

    def __init__(self, in_dim: int, event_dim: int) -> None:
        super().__init__(in_dim, event_dim)
        flows = import_zuko().flows
        noise = flows.MAF(
            event_dim,
            context=in_dim,
            transforms=self.TRANSFORMS,
            hidden_features=self.HIDDEN_DIMS,
            randperm=False,
        )
        place = flows.ElementWiseTransform(event_dim, context=in_dim, hidden_features=())
        # zuko's transforms run from the latent variable to noise; these are given the other way.
        self.flow = flows.Flow([place.inv, noise.transform.inv], noise.base)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """Return the flow's distribution, of event shape `(event_dim,)`."""
        return FlowDistribution(self.flow(in_single(features)))


# The names by which the command line and `zoo.recipe(guide=...)` know the families.
FAMILIES: dict[str, FamilyFactory] = {
    "mean-field": MeanField,
    "full-rank": FullRank,
    "low-rank": LowRank,
    "delta": PointMass,
    "flow": Flow,
}
