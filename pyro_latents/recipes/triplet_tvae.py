"""Recipes of the triplet TVAE, and of its baseline VAE+."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_latents.checks.splits import HonestSplit
from pyro_latents.data.batches import BatchMaker, Plain
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.triplets import (
    AffineRanges,
    Augmented,
    Pixelation,
    SeveralViews,
    Triplets,
)
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.knn import knn_accuracy
from pyro_latents.guides.families import Flow, FullRank, MeanField, PointMass
from pyro_latents.guides.pose_tvae import centre
from pyro_latents.guides.triplet_tvae import SeveralViewsGuide, TripletGuide
from pyro_latents.latent_transformations import Additive, LatentTransformation, Matrix
from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.losses.kernels import RBF, InverseMultiquadric
from pyro_latents.models.triplet_tvae import SeveralViewsTVAE, TripletTVAE
from pyro_latents.nets.conv import ConvDecoder, ConvEncoder
from pyro_latents.recipes.settings import Settings
from pyro_latents.recipes.triplet_split import hidden_view
from pyro_latents.recipes.vae import VAESettings

if TYPE_CHECKING:
    from pyro_latents.recipes.recipe import Recipe

KERNELS = {"inverse-multiquadric": InverseMultiquadric, "rbf": RBF}
TRANSFORMATIONS = {"additive": Additive, "matrix": Matrix}
# Codes that a nearest-neighbour metric learns from: more of them cost much and change little.
KNN_CODES = 20_000
ROWS = 2_000
# Test images whose last view is hidden, at most: each step of their inference renders all views.
HIDDEN_VIEWS = 100


@dataclass(frozen=True, kw_only=True)
class AffineOptions:
    """How far the random transformations go, which the paper does not say.

    Args:
        angle: Largest rotation of a view, in degrees.
        stretch: Largest factor by which a view is scaled in x or y; the smallest is one over it.
        shear: Largest shear of a view.
        shift: Largest translation of a view in x or y, in pixels.
        crop: Smallest side of the random crop of a view, as a part of the image's.
    """

    angle: float = 45.0
    stretch: float = 1.2
    shear: float = 0.1
    shift: float = 2.0
    crop: float = 0.85

    def build_ranges(self) -> AffineRanges:
        """Return the ranges of the random maps."""
        return AffineRanges(self.angle, self.stretch, self.shear, self.shift, self.crop)


@dataclass(frozen=True, kw_only=True)
class TripletSettings(AffineOptions, Settings):
    """The transformation-aware VAE of Giannone et al. (2019), appendix B.

    Args:
        z_dim: Size of the codes; 10 and 100 in table 1.
        transformation: The latent map: ``additive`` as in the paper, or ``matrix`` as in its
            outlook.
        mmd_weight: Weight of the discrepancies of `z`, `z1` and `z2`. The paper gives none; weak
            coherence helps the representation most.
        transformation_weight: Weight of the discrepancy of `T` from its prior. Equation (3) has no
            such term; with one, draws of the prior are transformations like those of the data.
        coherence: Whether `z0` has the paper's ``indirect`` coherence term, or the ``direct`` one
            of equation (3).
        indirect_views: Whether each view is rendered from `r(z, T)` too, as the image is from `z`.
        kernel: The kernel of the discrepancies.
        bandwidth: What its bandwidths are scaled with.
        transition_scale: Standard deviation of the noise of `r`; the paper's map has none.
        views: A view and its ``inverse``, as in the paper, or ``pixelations`` without inverses.
        num_views: The number of pixelations.
    """

    story: ClassVar[str] = "triplet-tvae"
    paper: ClassVar[str] = "Giannone et al. 2019"
    guides: ClassVar[tuple[str, ...]] = ("paper", "gaussian-transformation", "full-rank", "flow")

    epochs: int = 200
    learning_rate: float = 1e-4
    halve_every: int = 50
    z_dim: int = 10
    transformation: Literal["additive", "matrix"] = "additive"
    mmd_weight: float = 0.05
    transformation_weight: float = 0.0
    coherence: Literal["indirect", "direct"] = "indirect"
    indirect_views: bool = False
    kernel: Literal["inverse-multiquadric", "rbf"] = "inverse-multiquadric"
    bandwidth: Literal["dimension", "median"] = "dimension"
    transition_scale: float = 0.1
    views: Literal["inverse", "pixelations"] = "inverse"
    num_views: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.build_ranges()
        for name in ("z_dim", "num_views"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}."
                )
        for name in ("mmd_weight", "transformation_weight", "transition_scale"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must not be negative; got {getattr(self, name)}."
                )
        if self.batch_size < 2:
            raise UserError("--batch-size must be at least 2: a discrepancy compares data points.")
        if self.views == "inverse" and self.num_views != 2:
            raise UserError("--num-views is for --views pixelations; a triplet has 2.")

    def build_model(self, splits: Callable[[], Splits]) -> TripletTVAE:
        """Return the model with the decoder of the paper."""
        decoder = ConvDecoder(self.z_dim, channels=self.x_shape[0])
        options: dict[str, Any] = {
            "transition_scale": self.transition_scale,
            "indirect": self.coherence == "indirect",
            "indirect_views": self.indirect_views,
        }
        r = self.build_transformation()
        if self.views == "inverse":
            return TripletTVAE(decoder, self.z_dim, r, **options)
        return SeveralViewsTVAE(decoder, self.z_dim, r, num_views=self.num_views, **options)

    def build_transformation(self) -> LatentTransformation:
        """Return the latent map `r`."""
        return TRANSFORMATIONS[self.transformation](self.z_dim)

    def build_guide(self, name: str, model: nn.Module) -> TripletGuide:
        """Return the paper's guide, one with a normal `T`, or another family for `z`."""
        encoder = ConvEncoder(channels=self.x_shape[0])
        options: dict[str, Any] = {
            "z_family": {"full-rank": FullRank, "flow": Flow}.get(name, MeanField),
            "T_family": MeanField if name == "gaussian-transformation" else PointMass,
        }
        size = self.build_transformation().parameter_dim
        if self.views == "inverse":
            return TripletGuide(encoder, self.z_dim, size, **options)
        return SeveralViewsGuide(encoder, self.z_dim, size, num_views=self.num_views, **options)

    def build_loss(self) -> ELBO:
        """Return equation (3) with the coherence terms of the settings."""
        count = self.num_views
        names = ["T"] if self.views == "inverse" else [f"T{i + 1}" for i in range(count)]
        codes = ["z", *(f"z{i + 1}" for i in range(count))]
        indirect = self.coherence == "indirect"
        return TraceMMD_ELBO(
            {
                **dict.fromkeys(codes if indirect else [*codes, "z0"], self.mmd_weight),
                **dict.fromkeys(names, self.transformation_weight),
            },
            kernel=KERNELS[self.kernel](reference=self.bandwidth),
            prior_of={"z0": "z"} if indirect else None,
            max_plate_nesting=1,
        )

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the maker of triplets, or of images with pixelations."""
        if self.views == "inverse":
            return Triplets(examples, self.build_ranges())
        return SeveralViews(examples, (Pixelation(),) * self.num_views)

    def metrics(
        self, recipe: Recipe, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return the figures of single images: the VAE in the model, with the image encoder.

        To those of every story, ``knn_accuracy`` is added: 5 nearest neighbours of the means of
        `q(z0 | x)`, in per cent.
        """
        image = SimpleNamespace(
            model=recipe.model.image_model(), guide=recipe.guide.image_guide(), seed=recipe.seed
        )
        found = super().metrics(image, Plain(batches.examples), sampling)
        return {**found, **_knn(recipe, batches.examples)}

    def honest_split(self, recipe: Recipe, test: Examples, *, seed: int) -> HonestSplit | None:
        """Hide the last view of an image, which is the inverse view of a triplet (`hidden_view`).

        Without noise in `r` there is no density to infer by, and nothing is hidden.
        """
        if self.transition_scale == 0:
            return None
        batches = self.build_batches(test.take(slice(HIDDEN_VIEWS)), recipe.splits)
        return hidden_view(recipe.model, recipe.guide, batches)

    def image_pair(self, recipe: Recipe) -> tuple[Callable, Callable]:
        """Return the VAE in the model, with the image encoder."""
        return recipe.model.image_model(), recipe.guide.image_guide()


@dataclass(frozen=True, kw_only=True)
class VAEPlusSettings(AffineOptions, VAESettings):
    """VAE+ of Giannone et al. (2019): a VAE trained on the members of random triplets."""

    story: ClassVar[str] = "vae-plus"
    paper: ClassVar[str] = "Giannone et al. 2019"

    epochs: int = 200
    learning_rate: float = 1e-4
    halve_every: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self.build_ranges()
        if self.binarise:
            raise UserError("--binarise is not for vae-plus, whose images are augmented.")

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the maker of augmented images."""
        return Augmented(examples, self.build_ranges())

    def metrics(
        self, recipe: Recipe, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return the figures of the images as they are, with ``knn_accuracy``."""
        found = super().metrics(recipe, Plain(batches.examples), sampling)
        return {**found, **_knn(recipe, batches.examples)}


def image_codes(guide: nn.Module, x: Tensor) -> Tensor:
    """Return the posterior means of single images, `batch z_dim`, for each of the three models.

    A flow has no mean in closed form, and is drawn from.

    Args:
        guide: That of a triplet TVAE (`q(z0 | x)`), of VAE+ or of a VAE (`q(z | x)`).
        x: Images, of shape `batch channels height width`.
    """
    with torch.no_grad():
        means = []
        for part in x.split(ROWS):
            posterior = guide.posterior(part)
            means.append(centre(posterior["z"] if isinstance(posterior, dict) else posterior))
    return torch.cat(means)


def _knn(recipe: Recipe, test: Examples) -> dict[str, float]:
    train = recipe.splits.train.take(slice(KNN_CODES)).to(test.device)
    if train.y is None or test.y is None:
        return {}
    codes = [image_codes(recipe.guide, part.x) for part in (train, test)]
    return {"knn_accuracy": knn_accuracy(codes[0], train.y, codes[1], test.y)}


RECIPES = {
    # The embedded digits are 1,797 small images: larger steps, and a validation set to match.
    "triplet-tvae-digits": TripletSettings(
        data="digits", epochs=60, learning_rate=1e-3, halve_every=0, validation=180
    ),
    "triplet-tvae-mnist": TripletSettings(data="mnist"),
    "triplet-tvae-fashion-mnist": TripletSettings(data="fashion-mnist"),
    "vae-plus-mnist": VAEPlusSettings(data="mnist"),
    "vae-plus-fashion-mnist": VAEPlusSettings(data="fashion-mnist"),
}
