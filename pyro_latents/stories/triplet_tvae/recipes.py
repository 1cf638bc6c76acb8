"""Recipes of the triplet TVAE, and of its baseline VAE+."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyro.infer import ELBO
from torch import nn

from pyro_latents.checks.splits import HonestSplit
from pyro_latents.data.batches import BatchMaker, Plain
from pyro_latents.data.examples import Splits
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.fields import NotNegative, Positive
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import Flow, FullRank, MeanField, PointMass
from pyro_latents.guides.triplet_tvae import SeveralViewsGuide, TripletGuide
from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.losses.kernels import RBF, InverseMultiquadric
from pyro_latents.models.triplet_tvae import Additive, Matrix, SeveralViewsTVAE, TripletTVAE
from pyro_latents.models.vae import VAE
from pyro_latents.nets.conv import ConvDecoder, ConvEncoder
from pyro_latents.stories.story import Parts, Story
from pyro_latents.stories.triplet_tvae.batches import (
    AffineRanges,
    Augmented,
    Pixelations,
    Triplets,
)
from pyro_latents.stories.triplet_tvae.metrics import hidden_view, neighbours
from pyro_latents.stories.vae import VAEStory

KERNELS = {"inverse-multiquadric": InverseMultiquadric, "rbf": RBF}
TRANSFORMATIONS = {"additive": Additive, "matrix": Matrix}
# Test images whose last view is hidden, at most: each step of their inference renders all views.
HIDDEN_VIEWS = 100


@dataclass(frozen=True, kw_only=True)
class TripletTVAEStory(AffineRanges, Story):
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
        transition_scale: Standard deviation of the noise of `r`; the paper's map has none.
        views: A view and its ``inverse``, as in the paper, or ``pixelations`` without inverses.
        num_views: The number of pixelations.
    """

    name = "triplet-tvae"
    paper = "Giannone et al. 2019"
    guides = ("paper", "gaussian-transformation", "full-rank", "flow")

    epochs: Positive[int] = 200
    learning_rate: Positive[float] = 1e-4
    halve_every: NotNegative[int] = 50
    z_dim: Positive[int] = 10
    transformation: Literal["additive", "matrix"] = "additive"
    mmd_weight: NotNegative[float] = 0.05
    transformation_weight: NotNegative[float] = 0.0
    coherence: Literal["indirect", "direct"] = "indirect"
    indirect_views: bool = False
    kernel: Literal["inverse-multiquadric", "rbf"] = "inverse-multiquadric"
    transition_scale: NotNegative[float] = 0.1
    views: Literal["inverse", "pixelations"] = "inverse"
    num_views: Positive[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_images(28)
        self.check_ranges()
        if self.batch_size < 2:
            raise UserError("--batch-size must be at least 2: a discrepancy compares data points.")
        if self.validation % self.batch_size == 1:
            raise UserError(
                f"--validation {self.validation} leaves a batch of one image, and a discrepancy "
                "compares data points: give one more."
            )
        if self.views == "inverse" and self.num_views != 2:
            raise UserError("--num-views is for --views pixelations; a triplet has 2.")

    def build_model(self, splits: Callable[[], Splits]) -> TripletTVAE:
        """Return the model with the decoder of the paper."""
        decoder = ConvDecoder(self.z_dim, channels=self.x_shape[0])
        r, noise = TRANSFORMATIONS[self.transformation](self.z_dim), self.transition_scale
        if self.views == "inverse":
            return TripletTVAE(decoder, self.z_dim, r, transition_scale=noise)
        return SeveralViewsTVAE(
            decoder, self.z_dim, r, num_views=self.num_views, transition_scale=noise
        )

    def build_guide(self, name: str, model: nn.Module) -> TripletGuide:
        """Return the paper's guide, one with a normal `T`, or another family for `z`."""
        assert isinstance(model, TripletTVAE)
        kind = TripletGuide if self.views == "inverse" else SeveralViewsGuide
        return kind(
            ConvEncoder(channels=self.x_shape[0]),
            self.z_dim,
            model.transformation.parameter_dim,
            num_views=self.num_views,
            z_family={"full-rank": FullRank, "flow": Flow}.get(name, MeanField),
            T_family=MeanField if name == "gaussian-transformation" else PointMass,
        )

    def build_loss(self) -> ELBO:
        """Return equation (3) with the coherence terms of the settings."""
        numbers = range(1, self.num_views + 1)
        names = ["T"] if self.views == "inverse" else [f"T{i}" for i in numbers]
        views = [f"z{i}" for i in numbers]
        coherent = ["z", *views] if self.coherence == "indirect" else ["z", *views, "z0"]
        return TraceMMD_ELBO(
            {
                **dict.fromkeys(coherent, self.mmd_weight),
                **dict.fromkeys(names, self.transformation_weight),
            },
            kernel=KERNELS[self.kernel](),
            copies={"z0": "z"} if self.coherence == "indirect" else None,
            indirect=views if self.indirect_views else (),
            max_plate_nesting=1,
        )

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return the maker of triplets, or of images with pixelations."""
        examples = getattr(splits, split)
        if self.views == "inverse":
            return Triplets(examples, self)
        return Pixelations(examples, self.num_views)

    def metrics(
        self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return the metrics of single images, of the `image_pair`, with ``knn_accuracy``."""
        image = parts.with_programs(*self.image_pair(parts))
        found = super().metrics(image, Plain(batches.examples), sampling)
        return {**found, **neighbours(image, batches.examples)}

    def honest_split(self, parts: Parts, *, points: int, seed: int) -> HonestSplit | None:
        """Hide the last view of an image, which is the inverse view of a triplet (`hidden_view`).

        Without noise in `r` there is no density to infer by, and nothing is hidden.
        """
        if self.transition_scale == 0:
            return None
        batches = parts.batches("test", limit=min(points, HIDDEN_VIEWS))
        return hidden_view(parts.model, parts.guide, batches)

    def image_pair(self, parts: Parts) -> tuple[VAE, Amortised]:
        """Return the VAE in the model, with the image encoder."""
        return parts.model.image_model(), parts.guide.image_guide()


@dataclass(frozen=True, kw_only=True)
class VAEPlusStory(AffineRanges, VAEStory):
    """VAE+ of Giannone et al. (2019): a VAE trained on the members of random triplets."""

    name = "vae-plus"
    paper = "Giannone et al. 2019"

    epochs: Positive[int] = 200
    learning_rate: Positive[float] = 1e-4
    halve_every: NotNegative[int] = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_images()
        self.check_ranges()
        if self.binarise:
            raise UserError("--binarise is not for vae-plus, whose images are augmented.")

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return the maker of augmented images."""
        return Augmented(getattr(splits, split), self)

    def metrics(
        self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return the metrics of the images as they are, with ``knn_accuracy``."""
        found = super().metrics(parts, Plain(batches.examples), sampling)
        return {**found, **neighbours(parts, batches.examples)}


RECIPES: dict[str, Story] = {
    # The embedded digits are 1,797 small images: larger steps, and a validation set to match.
    "triplet-tvae-digits": TripletTVAEStory(
        data="digits", epochs=60, learning_rate=1e-3, halve_every=0, validation=180
    ),
    "triplet-tvae-mnist": TripletTVAEStory(data="mnist"),
    "triplet-tvae-fashion-mnist": TripletTVAEStory(data="fashion-mnist"),
    "vae-plus-mnist": VAEPlusStory(data="mnist"),
    "vae-plus-fashion-mnist": VAEPlusStory(data="fashion-mnist"),
}
