r"""Guides of the pose stories: T-VAE, DTVAE, and a flow over code and pose together.

=========== =================================================== ================================
guide       posterior                                           in the thesis
=========== =================================================== ================================
`TVAE`      ``q(z | x) q(u | x)`` from one network              T-VAE
`DTVAE`     ``q(u | x) q(z | y)``, y the image with u undone    DTVAE, "double transformer"
`JointTVAE` ``q(u | x) q(z | u, x)`` from one network           no such: drops the independence
=========== =================================================== ================================

A guide starts with the pose at the identity, the last layer of its head zero, unless it is built
otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import log

import pyro
import torch
from pyro.distributions import TransformedDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform

from pyro_latents.distributions.pose_priors import PosePrior
from pyro_latents.guides.families import Family, FamilyFactory, MeanField, PointMass
from pyro_latents.programs import centre
from pyro_latents.warps import Warp


class Scaled(Family):
    """Another family, its values multiplied: a start near zero for families without a head.

    Args:
        family: The family.
        scale: What its values are multiplied by.
        start: What is added to them then, of shape `event_dim`; None for zero.
    """

    start: Tensor

    def __init__(self, family: Family, scale: float, start: Tensor | None = None) -> None:
        super().__init__(family.in_dim, family.event_dim)
        self.family = family
        self.scale = scale
        start = torch.zeros(family.event_dim) if start is None else start.clone()
        self.register_buffer("start", start, persistent=False)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """Return the family's distribution, scaled, of event shape `(event_dim,)`."""
        # The cache hands a flow back the very draw whose density it has kept.
        scaling = AffineTransform(self.start, self.scale, event_dim=1, cache_size=1)
        return TransformedDistribution(self.family(features), [scaling])


def pose_family(
    factory: FamilyFactory, in_dim: int, prior: PosePrior, *, start: Tensor | None = None
) -> Family:
    """Build the family of `u`, at the identity and with the prior's ``initial_scale``.

    Args:
        factory: The family's class.
        in_dim: Size of the features.
        prior: The prior of `u`.
        start: Where to start in the place of the identity, of shape `u_dim`; the family's own
            parameters are left as they are drawn, about it.
    """
    family = factory(in_dim, prior.u_dim)
    if not isinstance(family, MeanField | PointMass):
        return Scaled(family, prior.initial_scale, start)
    if start is not None:
        with torch.no_grad():
            family.head.bias[: prior.u_dim] += start
        return family
    nn.init.zeros_(family.head.weight)
    nn.init.zeros_(family.head.bias)
    if isinstance(family, MeanField):
        nn.init.constant_(family.head.bias[prior.u_dim :], log(prior.initial_scale))
    return family


class PoseGuide(PyroModule):
    """`q(u | x) q(z | x, u)`: the pose is drawn first and the code given it.

    Args:
        z: The family of the code.
        u: The family of the pose, from `pose_family`.

    Implementing such a guide: write ``features`` and ``code_posterior``.
    """

    def __init__(self, *, z: Family, u: Family) -> None:
        super().__init__()
        self.z = z
        self.u = u

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return what the pose is inferred from, and the code as far as it can be."""

    @abstractmethod
    def code_posterior(self, x: Tensor, features: Tensor, u: Tensor) -> TorchDistributionMixin:
        """Return `q(z | x, u)`.

        Args:
            x: Of shape `batch channels height width`.
            features: Those of `x`.
            u: Of shape `*leading batch u_dim`.
        """

    def pose_posterior(self, features: Tensor) -> TorchDistributionMixin:
        """Return `q(u | x)`."""
        return self.u(features)

    def forward(self, x: Tensor, *, size: int = 1) -> dict[str, Tensor]:
        """Draw both sites in the plate of the data; `size` is the model's and unused."""
        features = self.features(x)
        with pyro.plate("data", len(x), dim=-1):
            u = pyro.sample("u", self.pose_posterior(features))
            z = pyro.sample("z", self.code_posterior(x, features, u))
        return {"z": z, "u": u}

    def posterior(self, x: Tensor) -> dict[str, TorchDistributionMixin]:
        """Return `q(u | x)`, and `q(z | x, u)` at the centre of the pose.

        Args:
            x: Of shape `batch channels height width`.
        """
        features = self.features(x)
        pose = self.pose_posterior(features)
        return {"z": self.code_posterior(x, features, centre(pose)), "u": pose}


class TVAE(PoseGuide):
    """`q(z | x) q(u | x)`, two heads on the features of one network.

    Args:
        encoder: Maps images to features, with ``features_dim``.
        z: The family of the code.
        u: The family of the pose, from `pose_family`.
    """

    def __init__(self, encoder: nn.Module, *, z: Family, u: Family) -> None:
        super().__init__(z=z, u=u)
        self.encoder = encoder

    def features(self, x: Tensor) -> Tensor:
        """Return the encoder's features."""
        return self.encoder(x)

    def code_posterior(self, x: Tensor, features: Tensor, u: Tensor) -> TorchDistributionMixin:
        """Return `q(z | x)`, whatever the pose."""
        return self.z(features)


class JointTVAE(TVAE):
    """`q(u | x) q(z | u, x)` from one network: code and pose depend on each other.

    The difference from `TVAE`: the family of the code has the encoder's features and the pose that
    was drawn. With flows for both this is one flow over `(u, z)`.
    """

    def code_posterior(self, x: Tensor, features: Tensor, u: Tensor) -> TorchDistributionMixin:
        """Return `q(z | u, x)`."""
        leading = torch.broadcast_shapes(features.shape[:-1], u.shape[:-1])
        return self.z(torch.cat([features.expand(*leading, -1), u.expand(*leading, -1)], dim=-1))


class DTVAE(PoseGuide):
    """The double transformer: localise, undo the pose, encode the upright image.

    Args:
        localiser: Maps images to features, a single layer of 128 units in the thesis.
        encoder: Maps upright images to features.
        z: The family of the code.
        u: The family of the pose, from `pose_family`.
        warp: The model's warp.
        pose: The link of the model's prior, from `u` to the parameters of the warp.
    """

    def __init__(
        self,
        localiser: nn.Module,
        encoder: nn.Module,
        *,
        z: Family,
        u: Family,
        warp: Warp,
        pose: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(z=z, u=u)
        self.localiser = localiser
        self.encoder = encoder
        self.warp = warp
        self.pose = pose

    def features(self, x: Tensor) -> Tensor:
        """Return the localiser's features."""
        return self.localiser(x)

    def code_posterior(self, x: Tensor, features: Tensor, u: Tensor) -> TorchDistributionMixin:
        """Return `q(z | y)`, y the upright image."""
        return self.z(self.encoder(self.upright(x, u)))

    def upright(self, x: Tensor, u: Tensor) -> Tensor:
        """Return `y`, the image with the pose undone.

        Args:
            x: Of shape `*leading channels height width`.
            u: Of shape `*leading u_dim`.
        """
        return self.warp.undo(x, self.pose(u))
