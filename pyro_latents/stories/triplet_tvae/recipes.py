"""Recipes of the triplet TVAE, and of its baseline VAE+."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure
from pyro.infer import ELBO
from torch import nn

from pyro_latents.checks.splits import HonestSplit
from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Splits
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import Metrics
from pyro_latents.fields import NotNegative, Positive
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import Flow, FullRank, MeanField, PointMass
from pyro_latents.guides.triplet_tvae import SeveralViewsGuide, TripletGuide
from pyro_latents.live import Live
from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.models.triplet_tvae import (
    Additive,
    LatentTransformation,
    Matrix,
    SeveralViewsTVAE,
    TripletTVAE,
)
from pyro_latents.models.vae import VAE
from pyro_latents.nets.conv import ConvDecoder, ConvEncoder
from pyro_latents.stories.moving_code import moving_code
from pyro_latents.stories.story import Parts, Story, by_muon
from pyro_latents.stories.transformation import Transformation
from pyro_latents.stories.triplet_tvae.batches import (
    AffineRanges,
    Framed,
    Pixelations,
    Triplets,
)
from pyro_latents.stories.triplet_tvae.figures import figures
from pyro_latents.stories.triplet_tvae.live import moving_transformation
from pyro_latents.stories.triplet_tvae.metrics import hidden_view, latent_map, neighbours
from pyro_latents.stories.triplet_tvae.plus import VAEPlusStory

# Test images whose last view is hidden, at most: each step of their inference renders all views.
HIDDEN_VIEWS = 100


@dataclass(frozen=True, kw_only=True)
class TripletTVAEStory(AffineRanges, Story):
    """The transformation-aware VAE of Giannone et al. (2019), appendix B.

    Args:
        z_dim: Size of the codes; 10 and 100 in table 1.
        transformation: The latent map: ``additive`` as in the paper, or ``matrix`` as in its
            outlook.
        generators: The number of a matrix: how many numbers `T` has. Few are shared by all images.
        coherence: How the codes of the views are held to `r(z, T)`: by the discrepancy of their
            ``conditional`` distributions within each triplet, as equation (3) has it, or by its
            ``kl``; or, to see what they are worth, by the discrepancy of what a batch has
            together, ``marginal`` or ``joint`` with `z` and `T`.
        coherence_weight: Weight of the discrepancies of `z`, `z1` and `z2`; the paper gives none.
        transformation_weight: Weight of the discrepancy of `T` from its prior. Equation (3) has no
            such term; with one, draws of the prior are transformations like those of the data.
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
    generators: Positive[int] = 6
    coherence: Literal["conditional", "kl", "marginal", "joint"] = "conditional"
    coherence_weight: NotNegative[float] = 200.0
    transformation_weight: NotNegative[float] = 0.0
    transition_scale: NotNegative[float] = 0.1
    views: Literal["inverse", "pixelations"] = "inverse"
    num_views: Positive[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_images(28)
        self.check_ranges()
        if self.coherence == "kl" and self.transition_scale == 0:
            raise UserError("--coherence kl needs a density of r: --transition-scale above 0.")
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
        r, noise = self.build_latent_map(), self.transition_scale
        if self.views == "inverse":
            return TripletTVAE(decoder, self.z_dim, r, transition_scale=noise)
        return SeveralViewsTVAE(
            decoder, self.z_dim, r, num_views=self.num_views, transition_scale=noise
        )

    def build_latent_map(self) -> LatentTransformation:
        """Return `r`."""
        if self.transformation == "additive":
            return Additive(self.z_dim)
        return Matrix(self.z_dim, self.generators)

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
        """Return equation (3), with the indirect term of `z0` that the paper puts in its place."""
        numbers = range(1, self.num_views + 1)
        T = ["T"] if self.views == "inverse" else [f"T{i}" for i in numbers]
        weights = dict.fromkeys(T, self.transformation_weight)
        if self.coherence == "kl":
            return TraceMMD_ELBO(weights, copies={"z0": "z"}, max_plate_nesting=1)
        weights |= dict.fromkeys(["z", *(f"z{i}" for i in numbers)], self.coherence_weight)
        return TraceMMD_ELBO(
            weights, compare=self.coherence, copies={"z0": "z"}, max_plate_nesting=1
        )

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return the maker of triplets, or of images with pixelations."""
        examples = getattr(splits, split)
        if self.views == "inverse":
            return Triplets(examples, self)
        return Pixelations(examples, self.num_views)

    def metrics(self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling) -> Metrics:
        """Return the metrics of single images, of the `image_pair`, with ``knn_accuracy``.

        Of a guide of one's own that has no encoder of an image they are those of the triplets.
        """
        pair = self.image_pair(parts)
        if pair is None:
            return super().metrics(parts, batches, sampling)
        image = parts.with_programs(*pair)
        framed = Framed(batches.examples, self)
        return {**super().metrics(image, framed, sampling), **neighbours(image, framed)}

    def honest_split(self, parts: Parts, *, points: int, seed: int) -> HonestSplit | None:
        """Hide the last view of an image, which is the inverse view of a triplet (`hidden_view`).

        Without noise in `r` there is no density to infer by, and nothing is hidden.
        """
        if self.transition_scale == 0:
            return None
        batches = parts.batches("test", limit=min(points, HIDDEN_VIEWS))
        return hidden_view(parts.model, parts.guide, batches)

    def figures(self, parts: Parts) -> dict[str, Figure]:
        """Draw one image's transformation given to others, and what every story draws."""
        own = {} if self.image_pair(parts) is None else figures(parts)
        return {**own, **super().figures(parts)}

    def live(self, parts: Parts) -> Live | None:
        """Return `T` of a triplet, which moves other images; the code where views are no turns."""
        pair = self.image_pair(parts)
        if pair is None:
            return None
        if self.views != "inverse" or not hasattr(parts.guide, "transformation_posterior"):
            return moving_code(*pair, parts.splits.test)
        found = self.build_transformation(parts)
        return moving_transformation(parts, parts.model, parts.guide, found, self.shrink)

    def alone(self, parts: Parts) -> tuple[VAE, Amortised]:
        """Return the VAE in the model, with the image encoder."""
        if not hasattr(parts.guide, "image_guide"):
            raise UserError(
                "this guide infers from an image and its views: for an image alone give it a "
                "method image_guide, which returns a guide of the VAE in the model."
            )
        return parts.model.image_model(), parts.guide.image_guide()

    def image_pair(self, parts: Parts) -> tuple[VAE, Amortised] | None:
        """Return the programs of an image alone, if the guide has them."""
        return self.alone(parts) if hasattr(parts.guide, "image_guide") else None

    def build_transformation(self, parts: Parts) -> Transformation:
        """Return `T`, inferred from the two views of a triplet."""
        return latent_map(parts.model, parts.guide)


RECIPES: dict[str, Story] = {
    # The embedded digits are 1,797 small images: larger steps, and a validation set to match.
    "triplet-tvae-digits": TripletTVAEStory(
        data="digits", epochs=60, learning_rate=1e-3, halve_every=0, validation=180
    ),
    "triplet-tvae-mnist": TripletTVAEStory(data="mnist"),
    "triplet-tvae-fashion-mnist": TripletTVAEStory(data="fashion-mnist"),
    "triplet-tvae-matrix-mnist": TripletTVAEStory(data="mnist", transformation="matrix"),
    "vae-plus-mnist": VAEPlusStory(data="mnist"),
    "vae-plus-fashion-mnist": VAEPlusStory(data="fashion-mnist"),
}
# Muon comes to a higher bound in a quarter of the steps (`benchmarks/time_to_bound.py`).
QUICKER = {"triplet-tvae-mnist": by_muon(2e-3, epochs=50)}
