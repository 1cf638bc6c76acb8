r"""A VAE whose code has a Laplace prior: most coordinates near zero, a few far out.

.. math:: z_i \sim \mathrm{Laplace}(0, 1 / \sqrt 2), \qquad
          x \mid z \sim \mathrm{Bernoulli}(f_\theta(z))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.distributions import Laplace
from pyro.infer import ELBO, Trace_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_latents.data.examples import Splits
from pyro_latents.distributions.likelihoods import Bernoulli
from pyro_latents.fields import Positive
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FAMILIES, MeanField
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.stories.story import Story

# Of unit variance, as the standard normal prior of a VAE.
SCALE = 0.5**0.5


class LaplaceVAE(PyroModule):
    """The generative process.

    Args:
        decoder: Maps `*leading z_dim` to logits, `*leading *x_shape`.
        z_dim: Size of the code.
    """

    def __init__(self, decoder: nn.Module, z_dim: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli()
        # A buffer follows the model to its device.
        self.register_buffer("loc", torch.zeros(z_dim), persistent=False)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Run it: observe `x`, of shape `batch *x_shape`, or draw `size` data points."""
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", Laplace(self.loc, SCALE).to_event(1))
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


@dataclass(frozen=True, kw_only=True)
class LaplaceStory(Story):
    """What can be set, each an option of `pyro-latents train`, and what is built of it.

    Args:
        z_dim: Size of the code.
    """

    name = "laplace-vae"
    paper = "your paper"
    guides = ("paper", *FAMILIES)

    z_dim: Positive[int] = 10

    def build_model(self, splits: Callable[[], Splits]) -> LaplaceVAE:
        """Return the model with a dense decoder."""
        return LaplaceVAE(DenseDecoder(self.z_dim, self.x_shape), self.z_dim)

    def build_guide(self, name: str, model: nn.Module) -> Amortised:
        """Return an encoder with a family; the first of the guides is the mean-field one."""
        encoder = DenseEncoder(self.x_shape)
        family = FAMILIES.get(name, MeanField)
        return Amortised(encoder, z=family(encoder.features_dim, self.z_dim))

    def build_loss(self) -> ELBO:
        """Return the bound by draws: this divergence has no closed form that Pyro knows."""
        return Trace_ELBO(max_plate_nesting=1)


DIGITS = LaplaceStory(data="digits", epochs=40, validation=180)
