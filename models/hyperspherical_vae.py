r"""The hyperspherical variational auto-encoder.

.. math:: p(x, z) = p_\theta(x | z) \, U(z; S^{d - 1})

A code is a direction. References:
    Hyperspherical Variational Auto-Encoders (Davidson et al., 2018),
    https://arxiv.org/abs/1804.00891
"""

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood
from pyro_latents.distributions.von_mises_fisher import HypersphericalUniform


class HypersphericalVAE(PyroModule):
    """A direction, decoded.

    Args:
        decoder: Maps `*leading z_dim` to the parameters of the likelihood, `*leading *x_shape`.
        z_dim: The dimension of the space around the sphere, at least 2.
        likelihood: `p(x | decoder(z))`; Bernoulli pixels if not given.
    """

    def __init__(
        self, decoder: nn.Module, z_dim: int, likelihood: Likelihood | None = None
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.z_dim = z_dim
        self.likelihood = likelihood or Bernoulli()
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the generative process.

        Args:
            x: Observations, of shape `batch *x_shape`; without them the process draws its own.
            size: The number of draws when nothing is observed.

        Returns:
            The observed or drawn `x`.
        """
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", HypersphericalUniform(self.z_dim, self._zero))  # z ~ U(sphere)
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)  # x ~ p(x | z)
