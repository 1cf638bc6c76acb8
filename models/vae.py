r"""The variational auto-encoder, the story every other one grows from, under three priors.

.. math:: p(x, z) = p_\theta(x | z) \, p(z)

================ ================================================ ==========================
prior            :math:`p(z)`                                     model
================ ================================================ ==========================
`StandardNormal` :math:`\mathcal{N}(0, I)`                        the VAE
`UniformSphere`  :math:`U(S^{d - 1})`, a code is a direction      the hyperspherical VAE
`VampPrior`      :math:`\frac{1}{K} \sum_k q_\phi(z | u_k)`       the VampPrior VAE
================ ================================================ ==========================

===================== ==========================================
paper                 here
===================== ==========================================
:math:`p_\theta`      ``decoder`` and ``likelihood``
:math:`q_\phi`        the guide, `pyro_latents.guides.amortised`
===================== ==========================================

References:
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    Hyperspherical Variational Auto-Encoders (Davidson et al., 2018),
    https://arxiv.org/abs/1804.00891
    VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120
"""

from __future__ import annotations

from abc import abstractmethod

import pyro
import torch
from pyro.distributions import Categorical, Distribution, MixtureSameFamily, Normal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood
from pyro_latents.distributions.von_mises_fisher import HypersphericalUniform


class VAE(PyroModule):
    """A code of a prior, decoded.

    Args:
        decoder: Maps `*leading z_dim` to the parameters of the likelihood, `*leading *x_shape`.
        z_dim: Size of the code.
        likelihood: `p(x | decoder(z))`; Bernoulli pixels if not given.
        prior: `p(z)`; the standard normal if not given.

    Example:
        >>> from pyro_latents.nets.mlp import DenseDecoder
        >>> VAE(DenseDecoder(2, (1, 8, 8)), z_dim=2)(size=5).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        decoder: nn.Module,
        z_dim: int,
        likelihood: Likelihood | None = None,
        prior: CodePrior | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.z_dim = z_dim
        self.likelihood = likelihood or Bernoulli()
        self.prior = prior or StandardNormal(z_dim)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run the generative process.

        Args:
            x: Observations, of shape `batch *x_shape`; without them the process draws its own.
            size: The number of draws when nothing is observed.

        Returns:
            The observed or drawn `x`.
        """
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", self.prior())  # z ~ p(z)
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)  # x ~ p(x | z)


class CodePrior(nn.Module):
    """`p(z)`, whose ``forward`` returns a distribution of event shape `(z_dim,)`."""

    @abstractmethod
    def forward(self) -> Distribution:
        """Return `p(z)`."""


class StandardNormal(CodePrior):
    """Independent standard normals.

    Args:
        z_dim: Size of the code.
    """

    _zero: Tensor

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def forward(self) -> Distribution:
        """Return `N(0, I)`."""
        return Normal(self._zero, 1.0).expand([self.z_dim]).to_event(1)


class UniformSphere(StandardNormal):
    """Directions, none of them likelier than others.

    Args:
        z_dim: The dimension of the space around the sphere, at least 2.
    """

    def forward(self) -> Distribution:
        """Return the uniform distribution on the unit sphere."""
        return HypersphericalUniform(self.z_dim, self._zero)


class VampPrior(CodePrior):
    """The mixture of the posteriors of pseudo-inputs, which are learned.

    Args:
        encoder: The guide's, shared: maps `*leading *x_shape` to features.
        family: The guide's, shared: `q(z | features)`.
        pseudo_inputs: What the pseudo-inputs begin with, of shape `num_inputs *x_shape`.
    """

    def __init__(self, encoder: nn.Module, family: nn.Module, pseudo_inputs: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.family = family
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.clone())

    def forward(self) -> Distribution:
        """Return the mixture."""
        weights = Categorical(logits=self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)))
        return MixtureSameFamily(weights, self.family(self.encoder(self.pseudo_inputs)))
