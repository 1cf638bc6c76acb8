"""Recipes of the VAE, the baseline of every story."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyro.infer import ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_latents.data.batches import BatchMaker, Binarised, Plain
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood, Normal
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FAMILIES, MeanField
from pyro_latents.guides.refined import Refined
from pyro_latents.models.vae import VAE
from pyro_latents.nets.conv import ConvDecoder, ConvEncoder
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.recipes.settings import Settings


@dataclass(frozen=True, kw_only=True)
class VAESettings(Settings):
    """A VAE with the networks of Giannone et al. (2019), appendix B.

    Args:
        z_dim: Size of the code; the paper's tables have 10 and 100.
        networks: The paper's convolutions, or dense layers of 256 units.
        likelihood: Bernoulli pixels as in the paper, or normal ones.
        scale: Standard deviation of the normal likelihood.
        binarise: Whether each pixel is drawn anew as Bernoulli of its grey value in every batch.
    """

    story: ClassVar[str] = "vae"
    paper: ClassVar[str] = "Kingma and Welling 2014"
    guides: ClassVar[tuple[str, ...]] = ("paper", *FAMILIES, "refined")

    z_dim: int = 10
    networks: Literal["conv", "dense"] = "conv"
    likelihood: Literal["bernoulli", "normal"] = "bernoulli"
    scale: float = 0.1
    binarise: bool = False

    def build_model(self, splits: Callable[[], Splits]) -> VAE:
        """Return the model with the decoder of the paper."""
        decoder: nn.Module
        if self.networks == "conv":
            decoder = ConvDecoder(self.z_dim, channels=self.x_shape[0])
        else:
            decoder = DenseDecoder(self.z_dim, self.x_shape)
        return VAE(decoder, self.z_dim, self.build_likelihood())

    def build_guide(self, name: str, model: nn.Module) -> PyroModule:
        """Return the paper's mean-field guide, or another family on the same encoder.

        ``refined`` is the paper's, improved for each data point at evaluation.
        """
        if name == "refined":
            return Refined(model, self.build_guide("paper", model), refining=False)
        encoder: ConvEncoder | DenseEncoder
        if self.networks == "conv":
            encoder = ConvEncoder(channels=self.x_shape[0])
        else:
            encoder = DenseEncoder(self.x_shape)
        family = FAMILIES.get(name, MeanField)
        return Amortised(encoder, z=family(encoder.features_dim, self.z_dim))

    def build_loss(self) -> ELBO:
        """Return the ELBO with the analytic divergence of the paper where there is one."""
        return TraceMeanField_ELBO(max_plate_nesting=1)

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the images as they are, or binarised anew in each batch."""
        return Binarised(examples) if self.binarise else Plain(examples)

    def build_likelihood(self) -> Likelihood:
        """Return `p(x | decoder(z))`."""
        event_dims = len(self.x_shape)
        if self.likelihood == "bernoulli":
            return Bernoulli(event_dims)
        return Normal(self.scale, event_dims)


# The paper trains for 200 epochs with Adam at 1e-4, halved every 50. Here ten times that step
# makes do with fewer epochs, and keeps the three halvings.
SHORT = {"epochs": 16, "halve_every": 4, "validation": 5_000}

RECIPES = {
    # The embedded digits are 1,797 small images: more epochs, and a validation set to match.
    "vae-digits": VAESettings(data="digits", epochs=60, halve_every=15, validation=180),
    "vae-mnist": VAESettings(data="mnist", **SHORT),
    "vae-fashion-mnist": VAESettings(data="fashion-mnist", **SHORT),
}
