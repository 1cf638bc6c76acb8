r"""Priors of the pose of an image, and the map from the pose to the parameters of its warp.

Sections IV and V.iii of Vivé's thesis. A pose prior is a distribution of the latent `u` and a
deterministic link from `u` to the warp's parameters, in which zero is the identity. The pose acts
on the image by itself, with no network in between to set its scale: so the priors fit their own.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from pyro.distributions import Delta, Distribution, Normal
from torch import Tensor, nn

from pyro_latents.warps import matrix_of_five

# The standard deviation that fitted priors start with: a tenth of half the image's width.
INITIAL_SCALE = 0.1
# A fitted scale and a point mass would sharpen each other without end.
SMALLEST_SCALE = 1e-3


class PosePrior(nn.Module):
    """`p(u)` and the link from `u` to the parameters of a warp.

    Args:
        u_dim: Size of the latent pose.
        initial_scale: A standard deviation of `u` whose warps are mild, for a guide to start at.

    Implementing a pose prior:
        - ``forward`` returns `p(u)`, of event shape `(u_dim,)`;
        - ``pose`` maps `*leading u_dim` to the parameters of the warp, the identity at zero until
          training moves it.
    """

    _zero: Tensor

    def __init__(self, u_dim: int, *, initial_scale: float = INITIAL_SCALE / 2) -> None:
        super().__init__()
        self.u_dim = u_dim
        self.initial_scale = initial_scale
        self.register_buffer("_zero", torch.zeros(u_dim), persistent=False)

    @abstractmethod
    def forward(self) -> Distribution:
        """Return `p(u)`, of event shape `(u_dim,)`."""

    def pose(self, u: Tensor) -> Tensor:
        """Map `*leading u_dim` to the parameters of the warp; here they are the same."""
        return u


class NoPrior(PosePrior):
    """The thesis' first prior: uniform, so that a point mass for `u` costs nothing.

    With it the bound has no term for `u`: values are not comparable with those of proper priors.
    There is nothing to draw from. Its draws are the identity, zero: the prior predictive of a
    model with this prior is in the reference pose, as in the thesis' figures 6 and 7.
    """

    def forward(self) -> Distribution:
        """Return a density of zero nats everywhere."""
        return Delta(self._zero, event_dim=1).mask(False)


class IdentityNormal(PosePrior):
    r"""A normal around the identity: :math:`u \sim N(0, \mathrm{diag}(\tau^2))`, tau fitted."""

    def __init__(self, u_dim: int) -> None:
        super().__init__(u_dim)
        self.log_scale = nn.Parameter(torch.full((u_dim,), INITIAL_SCALE).log())

    @property
    def loc(self) -> Tensor:
        """The mean, of shape `u_dim`."""
        return self._zero

    def forward(self) -> Distribution:
        """Return the normal with the fitted scale."""
        return Normal(self.loc, self.log_scale.exp() + SMALLEST_SCALE).to_event(1)


class FittedNormal(IdentityNormal):
    r"""As `IdentityNormal`, with a fitted mean: :math:`u \sim N(\nu, \mathrm{diag}(\tau^2))`."""

    def __init__(self, u_dim: int) -> None:
        super().__init__(u_dim)
        self.fitted_loc = nn.Parameter(torch.zeros(u_dim))

    @property
    def loc(self) -> Tensor:
        """The fitted mean, of shape `u_dim`."""
        return self.fitted_loc


class Affine5Normal(FittedNormal):
    r"""A fitted normal on rotation, log scales and translations, for the warp `Affine6`.

    .. math:: u = (\psi, \log S_x, \log S_y, T_x, T_y) \sim N(\nu, \mathrm{diag}(\tau^2))

    The link is the matrix of section V.iii.
    """

    _unit: Tensor

    def __init__(self) -> None:
        super().__init__(5)
        self.register_buffer("_unit", torch.eye(2, 3), persistent=False)

    def pose(self, u: Tensor) -> Tensor:
        """Map `*leading 5` to the six offsets of the matrix from the identity."""
        return (matrix_of_five(u) - self._unit).flatten(-2)


class FullNormal(PosePrior):
    r"""A standard normal of `rank` numbers, mapped linearly: a covariance of at most that rank.

    .. math:: u \sim N(0, I_k), \qquad \mathrm{pose}(u) = W u + b \sim N(b, W W^T)

    Args:
        num_parameters: Size of the warp's parameters.
        rank: The thesis' dimension of `u`, here k.

    Raises:
        ValueError: if the rank is not between one and the number of parameters.
    """

    def __init__(self, num_parameters: int, rank: int) -> None:
        if not 1 <= rank <= num_parameters:
            raise ValueError(
                f"FullNormal expects a rank from 1 to {num_parameters}, the warp's parameters; "
                f"got {rank}."
            )
        super().__init__(rank, initial_scale=0.5)
        self.link = nn.Linear(rank, num_parameters)
        nn.init.normal_(self.link.weight, std=INITIAL_SCALE / rank**0.5)
        nn.init.zeros_(self.link.bias)

    def forward(self) -> Distribution:
        """Return the standard normal of size `rank`."""
        return Normal(self._zero, 1.0).to_event(1)

    def pose(self, u: Tensor) -> Tensor:
        """Map `*leading rank` to the warp's parameters, linearly."""
        return self.link(u)
