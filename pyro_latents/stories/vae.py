"""Recipes of the VAE, the baseline of every story, under three priors."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_latents.data.batches import BatchMaker, Binarised, Plain
from pyro_latents.data.examples import Splits
from pyro_latents.distributions.likelihoods import Bernoulli, Normal
from pyro_latents.errors import UserError
from pyro_latents.fields import Positive
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FAMILIES, Family, MeanField
from pyro_latents.guides.hyperspherical import VonMisesFisherFamily
from pyro_latents.guides.refined import Refined
from pyro_latents.live import Live
from pyro_latents.models.vae import VAE, CodePrior, StandardNormal, UniformSphere, VampPrior
from pyro_latents.nets.conv import ConvDecoder, ConvEncoder
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.stories.moving_code import moving_code
from pyro_latents.stories.story import Parts, Story, by_muon

# Of the images that the paper's convolutions take.
SIDE = 28


@dataclass(frozen=True, kw_only=True)
class VAEStory(Story):
    """A VAE with the networks of Giannone et al. (2019), appendix B.

    Args:
        z_dim: Size of the code; the paper's tables have 10 and 100.
        prior: The standard normal, the uniform one on the sphere (hyperspherical VAE), or the
            VampPrior, whose components are posteriors. The last two go with the paper's guide.
        pseudo_inputs: Pseudo-inputs of the VampPrior; they begin as training points.
        networks: The paper's convolutions, or dense layers.
        hidden_dims: Units of the hidden layers of dense networks.
        likelihood: Bernoulli pixels as in the paper, or normal ones.
        scale: Standard deviation of the normal likelihood.
        binarise: Whether each pixel is drawn anew as Bernoulli of its grey value in every batch.
    """

    name = "vae"
    paper = "Kingma and Welling 2014"
    guides = ("paper", *FAMILIES, "refined")

    z_dim: Positive[int] = 10
    prior: Literal["normal", "sphere", "vamp"] = "normal"
    pseudo_inputs: Positive[int] = 50
    networks: Literal["conv", "dense"] = "conv"
    hidden_dims: tuple[int, ...] = (256, 256)
    likelihood: Literal["bernoulli", "normal"] = "bernoulli"
    scale: Positive[float] = 0.1
    binarise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden_dims or min(self.hidden_dims) < 1:
            raise UserError(f"--hidden-dims must be positive; got {list(self.hidden_dims)}.")
        if self.networks == "conv" and self.x_shape[1:] != (SIDE, SIDE):
            raise UserError(
                f"--networks conv is for images of {SIDE} x {SIDE}, not for {self.data}: "
                "give --networks dense."
            )
        if self.likelihood == "bernoulli" and len(self.x_shape) != 3:
            raise UserError(
                f"--likelihood bernoulli is for pixels, not for {self.data}: "
                "give --likelihood normal."
            )
        if self.prior == "sphere" and self.z_dim < 2:
            raise UserError("--prior sphere needs --z-dim 2 or more: a circle.")

    def build_model(self, splits: Callable[[], Splits]) -> VAE:
        """Return the model; that of a VampPrior has the encoder of its guide."""
        dims = len(self.x_shape)
        decoder: nn.Module
        if self.networks == "conv":
            decoder = ConvDecoder(self.z_dim, channels=self.x_shape[0])
        else:
            decoder = DenseDecoder(self.z_dim, self.x_shape, self.hidden_dims)
        likelihood = Normal(self.scale, dims) if self.likelihood == "normal" else Bernoulli(dims)
        return VAE(decoder, self.z_dim, likelihood, self.build_prior(splits))

    def build_prior(self, splits: Callable[[], Splits]) -> CodePrior:
        """Return `p(z)`."""
        if self.prior == "sphere":
            return UniformSphere(self.z_dim)
        if self.prior == "normal":
            return StandardNormal(self.z_dim)
        train = splits().train
        if len(train) < self.pseudo_inputs:
            raise UserError(
                f"--pseudo-inputs {self.pseudo_inputs} begin as training points, of which there "
                f"are {len(train)}: give fewer."
            )
        rows = torch.randperm(len(train))[: self.pseudo_inputs].to(train.device)
        return VampPrior(*self.build_encoder(MeanField), train.x[rows])

    def build_guide(self, name: str, model: nn.Module) -> PyroModule:
        """Return the paper's mean-field guide, or another family on the same encoder.

        The paper's guide on the sphere is the von Mises-Fisher one. ``refined`` is the paper's,
        improved for each data point at evaluation.
        """
        if self.prior != "normal" and name != "paper":
            raise UserError(f"--prior {self.prior} goes with --guide paper alone; got {name}.")
        if name == "refined":
            return Refined(model, self.build_guide("paper", model), refining=False)
        assert isinstance(model, VAE)
        if isinstance(model.prior, VampPrior):
            assert isinstance(model.prior.family, Family)
            return Amortised(model.prior.encoder, z=model.prior.family)
        kind = VonMisesFisherFamily if self.prior == "sphere" else FAMILIES.get(name, MeanField)
        encoder, family = self.build_encoder(kind)
        return Amortised(encoder, z=family)

    def build_encoder(self, kind: Callable[[int, int], Family]) -> tuple[nn.Module, Family]:
        """Return the encoder, and the family of that kind on its features."""
        encoder: ConvEncoder | DenseEncoder
        if self.networks == "conv":
            encoder = ConvEncoder(channels=self.x_shape[0])
        else:
            encoder = DenseEncoder(self.x_shape, self.hidden_dims)
        return encoder, kind(encoder.features_dim, self.z_dim)

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return the data as they are, or binarised anew in each batch."""
        examples = getattr(splits, split)
        return Binarised(examples) if self.binarise else Plain(examples)

    def live(self, parts: Parts) -> Live:
        """Return the code, which moves an image or a point, and an image to encode."""
        return moving_code(*self.alone(parts), parts.splits.test)


@dataclass(frozen=True, kw_only=True)
class ManifoldVAEStory(VAEStory):
    """The models that Connor et al. (2020) compare with on the manifolds, and their table 2."""

    name = "vaells-baselines"
    paper = "Connor, Canal and Rozell 2020, section 4"
    guides = ("paper",)

    batch_size: Positive[int] = 30
    z_dim: Positive[int] = 2
    networks: Literal["conv", "dense"] = "dense"
    hidden_dims: tuple[int, ...] = (512,)
    likelihood: Literal["bernoulli", "normal"] = "normal"


# The paper trains for 200 epochs with Adam at 1e-4, halved every 50. Here ten times that step
# makes do with fewer epochs, and keeps the three halvings.
MNIST = VAEStory(data="mnist", epochs=16, halve_every=4, validation=5_000)

RECIPES: dict[str, VAEStory] = {
    # The embedded digits are 1,797 small images: more epochs, and a validation set to match.
    "vae-digits": VAEStory(data="digits", epochs=60, halve_every=15, validation=180),
    "vae-mnist": MNIST,
    "vae-fashion-mnist": replace(MNIST, data="fashion-mnist"),
}
# Muon comes to the same bound in a quarter of the steps (`benchmarks/time_to_bound.py`).
QUICKER = {"vae-mnist": by_muon(2e-3, epochs=4)}

for _data, _epochs, _validation in (("swiss-roll", 91, 500), ("circles", 308, 200)):
    _normal = ManifoldVAEStory(data=_data, epochs=_epochs, validation=_validation)
    RECIPES[f"vae-{_data}"] = _normal
    RECIPES[f"hyperspherical-vae-{_data}"] = replace(_normal, prior="sphere")
    RECIPES[f"vamp-vae-{_data}"] = replace(_normal, prior="vamp")
