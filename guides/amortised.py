"""A guide for any model whose latent variables are independent given the observation."""

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.guides.families import Family


class Amortised(PyroModule):
    r"""An encoder's features, and one family for each latent site.

    .. math:: q(z_1, \ldots, z_n | x) = \prod_i q_i(z_i | \mathrm{encoder}(x))

    Args:
        encoder: Maps `*leading *x_shape` to features, `*leading features_dim`.
        families: The family of each latent site, by the site's name in the model.

    Example:
        >>> import torch
        >>> from pyro_latents.guides.families import MeanField
        >>> guide = Amortised(nn.Flatten(-3), z=MeanField(64, 2))
        >>> guide.posterior(torch.zeros(5, 1, 8, 8))["z"].event_shape
        torch.Size([2])
    """

    def __init__(self, encoder: nn.Module, **families: Family) -> None:
        super().__init__()
        self.encoder = encoder
        self.families = nn.ModuleDict(families)

    def posterior(self, x: Tensor) -> dict[str, TorchDistributionMixin]:
        """Return the distribution of each latent site given `x`, of shape `batch *x_shape`."""
        features = self.encoder(x)
        return {name: family(features) for name, family in self.families.items()}

    def forward(self, x: Tensor, *, size: int = 1) -> dict[str, Tensor]:
        """Draw every latent site in the plate of the data; `size` is the model's and unused."""
        with pyro.plate("data", len(x), dim=-1):
            return {name: pyro.sample(name, q) for name, q in self.posterior(x).items()}
