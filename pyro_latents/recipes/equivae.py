"""Recipes of the EquiVAE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_latents.checks.splits import HonestSplit, prior_guide
from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.sets import ClassTable, Complementary
from pyro_latents.distributions.likelihoods import Bernoulli, Likelihood, Normal
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.guides.equivae import EquiVAEGuide
from pyro_latents.guides.families import FAMILIES, MeanField
from pyro_latents.models.equivae import EquiVAE
from pyro_latents.nets.feige import (
    EquivariantEncoder,
    FeigeDecoder,
    InvariantEncoder,
)
from pyro_latents.nets.initial import initialise_for_relu
from pyro_latents.nets.mlp import DenseDecoder
from pyro_latents.nets.sets import SetEncoder
from pyro_latents.recipes.equivae_metrics import labelled_figures, measured
from pyro_latents.recipes.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyro_latents.recipes.recipe import Recipe
    from pyro_latents.training.svi_module import SVIModule


@dataclass(frozen=True, kw_only=True)
class EquiVAESettings(Settings):
    """The supervised EquiVAE of Feige (2019), section 3.1.

    The paper gives neither networks nor step sizes. At 2e-3 the distance rule is at 20 % of errors
    after 200 steps on MNIST, and at 1e-3 at 25 %.

    Args:
        r_dim: Size of the invariant code.
        v_dim: Size of the equivariant code.
        m_max: The largest complementary set; 7 for MNIST and 10 for SVHN.
        width: Channels of the first of the three convolutions of every encoder.
        decoder: Two ``dense`` layers of 512 units, or transposed convolutions (``conv``), which
            cost several times as much where every class is decoded.
        dropout: In the invariant encoder, which else learns its complementary sets by heart.
        normalise: Whether the invariant encoder normalises its batches.
        deform: Scale of random affine maps that the invariant encoder's images are warped by in
            training; 0.1 is about four degrees and 1.4 pixels of 28. Not in the paper.
        likelihood: Bernoulli pixels, or normal ones.
        scale: Standard deviation of the normal likelihood.
    """

    story: ClassVar[str] = "equivae"
    paper: ClassVar[str] = "Feige 2019"
    guides: ClassVar[tuple[str, ...]] = ("paper", *FAMILIES)

    epochs: int = 40
    learning_rate: float = 2e-3
    halve_every: int = 10
    validation: int = 5_000
    r_dim: int = 16
    v_dim: int = 16
    m_max: int = 7
    width: int = 16
    decoder: Literal["dense", "conv"] = "dense"
    dropout: float = 0.2
    normalise: bool = False
    deform: float = 0.0
    likelihood: Literal["bernoulli", "normal"] = "bernoulli"
    scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("r_dim", "v_dim", "m_max", "width", "scale"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must be positive; got {getattr(self, name)}."
                )
        if self.deform < 0:
            raise UserError(f"--deform must not be negative; got {self.deform}.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout must be at least 0 and below 1; got {self.dropout}.")

    def build_model(self, splits: Callable[[], Splits]) -> EquiVAE:
        """Return the model, with the class frequencies of the labelled points."""
        return EquiVAE(**self.model_parts(splits()))

    def model_parts(self, splits: Splits) -> dict[str, Any]:
        """Return the arguments of the model."""
        decoder: nn.Module
        if self.decoder == "dense":
            decoder = DenseDecoder(self.r_dim + self.v_dim, self.x_shape, (512, 512))
            # 35 in place of 50 % by the distance rule after 100 steps on MNIST.
            initialise_for_relu(decoder)
        else:
            decoder = FeigeDecoder(self.r_dim + self.v_dim, self.x_shape, self.width)
        network = InvariantEncoder(
            self.x_shape,
            self.r_dim,
            self.width,
            self.dropout,
            normalise=self.normalise,
            deform=self.deform,
        )
        return {
            "invariant": SetEncoder(network, self.r_dim, len(self.x_shape)),
            "decoder": decoder,
            "v_dim": self.v_dim,
            "class_weights": self.class_table(splits).counts.cpu() / len(self.labelled(splits)),
            "likelihood": self.build_likelihood(),
        }

    def build_guide(self, name: str, model: nn.Module) -> EquiVAEGuide:
        """Return the paper's mean-field guide, or another family on the same encoder."""
        assert isinstance(model, EquiVAE)
        return EquiVAEGuide(*self.guide_parts(name), model)

    def guide_parts(self, name: str) -> tuple[EquivariantEncoder, nn.Module]:
        """Return the encoder and the family of `q(v | r, x)`."""
        encoder = EquivariantEncoder(self.x_shape, self.r_dim, self.width)
        return encoder, FAMILIES.get(name, MeanField)(encoder.features_dim, self.v_dim)

    def build_loss(self) -> ELBO:
        """Return the bound of equation (4), its divergence analytic where it can be."""
        return TraceMeanField_ELBO(max_plate_nesting=1)

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the maker of points with complementary sets from the labelled ones."""
        own = is_part(examples, splits.train)
        return Complementary(examples, self.class_table(splits), self.m_max, own=own)

    def build_likelihood(self) -> Likelihood:
        """Return `p(x | r, v)` as a function of the decoder's output."""
        event_dims = len(self.x_shape)
        if self.likelihood == "bernoulli":
            return Bernoulli(event_dims)
        return Normal(self.scale, event_dims)

    def labelled(self, splits: Splits) -> Examples:
        """Return the labelled points: all that are trained on."""
        return splits.train

    def class_table(self, splits: Splits) -> ClassTable:
        """Return the labelled points sorted by class.

        Raises:
            UserError: if a class has fewer than two of them.
        """
        return ClassTable(self.labelled(splits), splits.num_classes)

    def training_module(self, recipe: Recipe) -> SVIModule:
        """Return the module that trains the recipe and leaves its class means behind."""
        from pyro_latents.training.scheduled import ScheduledModule

        def refresh() -> None:
            labelled = self.labelled(recipe.splits)
            assert labelled.y is not None
            recipe.model.refresh_class_means(labelled.x, labelled.y)

        return ScheduledModule(
            recipe.model,
            recipe.guide,
            recipe.loss,
            self.build_optimizer,
            before_step=self.before_step(recipe),
            at_end=refresh,
            seed=recipe.seed,
        )

    def before_step(self, recipe: Recipe) -> Callable[[float | None], None]:
        """Return what is called before each step with the epochs done."""
        return lambda epochs: None

    def metrics(
        self, recipe: Recipe, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return the bound of labelled points and what is known without the labels.

        ``elbo`` and its terms are of `log p(x, y)`, equation (4), with sets of ``m_max``; the
        others are those of `equivae_metrics.unlabelled_figures`.
        """
        with measured(recipe, self.labelled(recipe.splits)):
            return labelled_figures(recipe, batches, sampling)

    def figures(self, recipe: Recipe, batches: BatchMaker) -> dict[str, Figure]:
        """Draw test images, their reconstructions, and draws of the prior."""
        with measured(recipe, self.labelled(recipe.splits)):
            return super().figures(recipe, batches)

    def honest_split(self, recipe: Recipe, test: Examples, *, seed: int) -> HonestSplit:
        """Hide the point itself: what is seen is a complementary set of its class.

        Replicates have the code `r` of the set and `v` from its prior. The label of a test point
        does no more than to pick the set, also for a model that learned from few labels.
        """
        model = partial(recipe.model.process, size=1)
        table = self.class_table(recipe.splits)
        batches = Complementary(test, table, self.m_max, own=False)
        return HonestSplit("member given set of class", model, prior_guide(model), batches)

    def image_pair(self, recipe: Recipe) -> tuple[Callable, Callable]:
        """Return model and guide as they are: without a class, it is inferred."""
        return recipe.model, recipe.guide


def is_part(examples: Examples, train: Examples) -> bool:
    """Whether examples are the training part itself, on whatever device."""
    if examples.x.shape != train.x.shape:
        return False
    return examples.x is train.x or torch.equal(examples.x, train.x.to(examples.device))


SVHN: dict[str, Any] = {
    "data": "svhn",
    "epochs": 90,
    "learning_rate": 1e-3,
    "halve_every": 20,
    "validation": 3_257,
    "m_max": 10,
    "width": 32,
    "decoder": "conv",
    "likelihood": "normal",
}

RECIPES: dict[str, EquiVAESettings] = {
    # The embedded digits are 1,797 small images: more epochs, and a validation set to match.
    "equivae-digits": EquiVAESettings(data="digits", epochs=60, halve_every=20, validation=180),
    "equivae-mnist": EquiVAESettings(data="mnist"),
    "equivae-svhn": EquiVAESettings(**SVHN),
}
