r"""The variational auto-encoder with a pose of Vivé's thesis: the code is drawn, then warped.

.. math:: p(x, z, u) = N(z; 0, I) \, p(u) \prod_{i,j} \mathrm{Bernoulli}(x_{ij};
          \mathrm{warp}(y'(z), u)_{ij}) \qquad \text{(sections II, IV)}

The pose `u` and the code `z` are independent. The decoder makes the image `y'` in its reference
pose, a spatial transformer without parameters of its own puts it into the pose `u`.

========================= ===================================
thesis                    here
========================= ===================================
:math:`y'`                ``reference(z)``
:math:`x'`                ``probabilities(z, u)``
:math:`\nu^u, \tau^u`     the loc and the scale of ``prior``
========================= ===================================

Differs from the thesis: the pose is counted from the identity, where its priors start, and its
guides if they are not told otherwise (the thesis recommends such a start against poor local
minima, section VI).

References:
    Variational generation of images by deep spatial architectures (Vivé)
"""

import pyro
import torch
from pyro.distributions import Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood
from pyro_latents.distributions.pose_priors import PosePrior
from pyro_latents.warps import Warp

# Appendix A: the output of the network is clipped to [1e-6, 1 - 1e-6].
CLIP = 1e-6


class PoseTVAE(PyroModule):
    """A standard normal code, decoded in the reference pose and warped by a pose.

    Args:
        decoder: Maps `*leading z_dim` to logits of the image, `*leading channels height width`.
        warp: The spatial transformer.
        prior: `p(u)`, and the link from `u` to the warp's parameters.
        z_dim: Size of the code.
        likelihood: `p(x | logits)`; Bernoulli pixels if not given.

    Example:
        >>> from pyro_latents.distributions.pose_priors import FittedNormal
        >>> from pyro_latents.nets.mlp import DenseDecoder
        >>> from pyro_latents.warps import Affine5
        >>> model = PoseTVAE(DenseDecoder(2, (1, 8, 8)), Affine5((8, 8)), FittedNormal(5), z_dim=2)
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        decoder: nn.Module,
        warp: Warp,
        prior: PosePrior,
        *,
        z_dim: int,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.warp = warp
        self.prior = prior
        self.z_dim = z_dim
        self.u_dim = prior.u_dim
        self.likelihood = likelihood or Bernoulli()
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the generative process.

        Args:
            x: Images in [0, 1], of shape `batch channels height width`; without them the process
                draws its own.
            size: The number of draws when nothing is observed.

        Returns:
            The observed or drawn images.
        """
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            u = pyro.sample("u", self.prior())  # u ~ p(u)
            z = pyro.sample("z", Normal(self._zero, 1.0).expand([self.z_dim]).to_event(1))
            return pyro.sample("x", self.pixels(z, u), obs=x)  # eq. 8

    def pixels(self, z: Tensor, u: Tensor) -> TorchDistributionMixin:
        """Return `p(x | z, u)`, with the shapes of ``probabilities``."""
        # The warp acts on probabilities, as printed; their clipped logits (appendix A) give the
        # same likelihood as the probabilities, and a stable one.
        return self.likelihood(torch.logit(self.probabilities(z, u), eps=CLIP))

    def reference(self, z: Tensor) -> Tensor:
        """Return `y'`, the probabilities of the pixels in the reference pose.

        Args:
            z: Of shape `*leading z_dim`.

        Returns:
            Of shape `*leading channels height width`.
        """
        return torch.sigmoid(self.decoder(z))

    def probabilities(self, z: Tensor, u: Tensor) -> Tensor:
        """Return `x'`, the probabilities of the pixels in the pose `u`.

        Args:
            z: Of shape `*leading z_dim`.
            u: Of shape `*leading u_dim`.

        Returns:
            Of shape `*leading channels height width`.
        """
        return self.warp(self.reference(z), self.prior.pose(u))
