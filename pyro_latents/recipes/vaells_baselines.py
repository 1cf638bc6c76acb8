"""The models that Connor et al. (2020) compare with on the synthetic manifolds.

All have the networks of table 2: one hidden layer of 512 units to each side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_latents.data.batches import BatchMaker, Plain
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import Family, MeanField
from pyro_latents.guides.hyperspherical import VonMisesFisherFamily
from pyro_latents.models.hyperspherical_vae import HypersphericalVAE
from pyro_latents.models.vae import VAE
from pyro_latents.models.vamp_vae import VampVAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.recipes.settings import Settings

HIDDEN = (512,)


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(Settings):
    """A VAE with one of three priors, and the posterior that goes with it.

    Args:
        prior: `normal`, `sphere` (hyperspherical VAE) or `vamp` (VampPrior).
        z_dim: Size of the code.
        x_scale: Standard deviation of the likelihood.
        pseudo_inputs: Pseudo-inputs of the VampPrior; they begin as training points.
    """

    story: ClassVar[str] = "vaells-baselines"
    paper: ClassVar[str] = "Connor, Canal and Rozell 2020, section 4"
    guides: ClassVar[tuple[str, ...]] = ("paper",)

    prior: Literal["normal", "sphere", "vamp"] = "normal"
    z_dim: int = 2
    x_scale: float = 0.1
    pseudo_inputs: int = 50

    def build_model(self, splits: Callable[[], Splits]) -> nn.Module:
        """Return the model; that of a VampPrior has the encoder of its guide."""
        decoder = DenseDecoder(self.z_dim, self.x_shape, HIDDEN)
        likelihood = Normal(self.x_scale, len(self.x_shape))
        if self.prior == "sphere":
            return HypersphericalVAE(decoder, self.z_dim, likelihood)
        if self.prior == "vamp":
            train = splits().train
            rows = torch.randperm(len(train))[: self.pseudo_inputs].to(train.device)
            encoder, family = self._encoder_and_family()
            return VampVAE(decoder, encoder, family, train.x[rows], likelihood)
        return VAE(decoder, self.z_dim, likelihood)

    def build_guide(self, name: str, model: nn.Module) -> Amortised:
        """Return the amortised guide with the family that fits the prior."""
        if isinstance(model, VampVAE):
            return Amortised(model.encoder, z=model.family)
        encoder, family = self._encoder_and_family()
        return Amortised(encoder, z=family)

    def build_loss(self) -> ELBO:
        """Return the ELBO with the analytic divergence where there is one."""
        return TraceMeanField_ELBO(max_plate_nesting=1)

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the points as they are."""
        return Plain(examples)

    def _encoder_and_family(self) -> tuple[DenseEncoder, Family]:
        encoder = DenseEncoder(self.x_shape, HIDDEN)
        family = VonMisesFisherFamily if self.prior == "sphere" else MeanField
        return encoder, family(encoder.features_dim, self.z_dim)


NAMES = {"vae": "normal", "hyperspherical-vae": "sphere", "vamp-vae": "vamp"}
RECIPES = {
    f"{name}-{data}": BaselineSettings(
        data=data,
        prior=prior,
        epochs=epochs,
        batch_size=30,
        learning_rate=1e-3,
        validation=validation,
    )
    for name, prior in NAMES.items()
    for data, epochs, validation in (("swiss-roll", 91, 500), ("circles", 308, 200))
}
