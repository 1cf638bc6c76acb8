r"""The VAE with a VampPrior: a mixture of the posteriors of learned pseudo-inputs.

.. math:: p(x, z) = p_\theta(x | z) \, \frac{1}{K} \sum_{k=1}^K q_\phi(z | u_k)

The prior is made of the guide's own encoder and family, which model and guide share.

References:
    VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120
"""

import pyro
from pyro.distributions import Categorical, MixtureSameFamily
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood


class VampVAE(PyroModule):
    """A code near that of one of the pseudo-inputs, decoded.

    Args:
        decoder: Maps `*leading z_dim` to the parameters of the likelihood, `*leading *x_shape`.
        encoder: Maps `*leading *x_shape` to features, `*leading features_dim`.
        family: `q(z | features)`, a family of the guides.
        pseudo_inputs: What the pseudo-inputs begin with, of shape `num_inputs *x_shape`.
        likelihood: `p(x | decoder(z))`; Bernoulli pixels if not given.
    """

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        family: nn.Module,
        pseudo_inputs: Tensor,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.encoder = encoder
        self.family = family
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.clone())
        self.likelihood = likelihood or Bernoulli()

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the generative process.

        Args:
            x: Observations, of shape `batch *x_shape`; without them the process draws its own.
            size: The number of draws when nothing is observed.

        Returns:
            The observed or drawn `x`.
        """
        parts = self.family(self.encoder(self.pseudo_inputs))
        weights = Categorical(logits=self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)))
        prior = MixtureSameFamily(weights, parts)
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", prior)  # z ~ mean_k q(z | u_k)
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)  # x ~ p(x | z)
