r"""The variational auto-encoder, the story every other one grows from.

.. math:: p(x, z) = p_\theta(x | z) \, \mathcal{N}(z; 0, I)

References:
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
"""

import pyro
import torch
from pyro.distributions import Normal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood


class VAE(PyroModule):
    """A standard normal code, decoded.

    Args:
        decoder: Maps `*leading z_dim` to the parameters of the likelihood, `*leading *x_shape`.
        z_dim: Size of the code.
        likelihood: `p(x | decoder(z))`; Bernoulli pixels if not given.

    Example:
        >>> from pyro_latents.nets.mlp import DenseDecoder
        >>> VAE(DenseDecoder(2, (1, 8, 8)), z_dim=2)(size=5).shape
        torch.Size([5, 1, 8, 8])
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
            prior = Normal(self._zero, 1.0).expand([self.z_dim]).to_event(1)
            z = pyro.sample("z", prior)  # z ~ N(0, I)
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)  # x ~ p(x | z)
