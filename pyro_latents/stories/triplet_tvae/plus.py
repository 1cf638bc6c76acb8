"""Recipes of VAE+, the baseline of the triplet TVAE."""

from dataclasses import dataclass
from typing import Any, Literal

from pyro.infer import ELBO
from torch import nn

from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Splits
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import Metrics
from pyro_latents.fields import NotNegative, Positive
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import FAMILIES, MeanField
from pyro_latents.guides.triplet_tvae import SeparateViewsGuide
from pyro_latents.live import Live
from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.models.triplet_tvae import SeparateViews
from pyro_latents.models.vae import VAE
from pyro_latents.nets.conv import ConvDecoder, ConvEncoder
from pyro_latents.stories.moving_code import moving_code
from pyro_latents.stories.story import Parts, Story
from pyro_latents.stories.triplet_tvae.batches import AffineRanges, Framed, Triplets
from pyro_latents.stories.triplet_tvae.metrics import neighbours


@dataclass(frozen=True, kw_only=True)
class VAEPlusStory(AffineRanges, Story):
    """VAE+ of Giannone et al. (2019): a VAE trained on all members of random triplets.

    It has the networks of the triplet TVAE, and sees as many images a step.

    Args:
        z_dim: Size of the codes; 10 and 100 in table 1.
        members: Whether it sees the whole ``triplet``, or the ``image`` of it alone: the VAE in
            the same frame.
        views_kl: Whether the codes of the views have a divergence from the prior. Those of a
            triplet TVAE have none of their own.
    """

    name = "vae-plus"
    paper = "Giannone et al. 2019"
    guides = ("paper", *FAMILIES)

    epochs: Positive[int] = 200
    learning_rate: Positive[float] = 1e-4
    halve_every: NotNegative[int] = 50
    z_dim: Positive[int] = 10
    members: Literal["triplet", "image"] = "triplet"
    views_kl: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_images(28)
        self.check_ranges()

    @property
    def num_views(self) -> int:
        """How many views an image has beside it."""
        return 2 if self.members == "triplet" else 0

    def build_model(self, splits: Any) -> SeparateViews:
        """Return the model with the decoder of the paper."""
        decoder = ConvDecoder(self.z_dim, channels=self.x_shape[0])
        return SeparateViews(decoder, self.z_dim, num_views=self.num_views)

    def build_guide(self, name: str, model: nn.Module) -> SeparateViewsGuide:
        """Return the paper's mean-field guide, or another family on the same encoder."""
        family = FAMILIES.get(name, MeanField)
        return SeparateViewsGuide(ConvEncoder(channels=self.x_shape[0]), self.z_dim, family)

    def build_loss(self) -> ELBO:
        """Return the bound, or what is left of it without the divergences of the views."""
        views = [] if self.views_kl else [f"z{i}" for i in range(1, 1 + self.num_views)]
        return TraceMMD_ELBO(dict.fromkeys(views, 0.0), max_plate_nesting=1)

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return the maker of triplets, or of the images of them."""
        kind = Triplets if self.num_views else Framed
        return kind(getattr(splits, split), self)

    def metrics(self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling) -> Metrics:
        """Return the metrics of single images, of the `image_pair`, with ``knn_accuracy``."""
        image = parts.with_programs(*self.image_pair(parts))
        framed = Framed(batches.examples, self)
        return {**super().metrics(image, framed, sampling), **neighbours(image, framed)}

    def live(self, parts: Parts) -> Live:
        """Return the code of an image, which moves it."""
        return moving_code(*self.alone(parts), parts.splits.test)

    def alone(self, parts: Parts) -> tuple[VAE, Amortised]:
        """Return the VAE of one image, with its encoder."""
        return parts.model.image_model(), parts.guide.image_guide()

    def image_pair(self, parts: Parts) -> tuple[VAE, Amortised]:
        """Return the programs of an image alone."""
        return self.alone(parts)
