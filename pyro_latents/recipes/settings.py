"""What a story must say to become a recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from pyro.infer import ELBO
from torch import nn

from pyro_latents.checks.splits import HonestSplit, half_images
from pyro_latents.data.batches import Batches, BatchMaker
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.sources import SHAPES
from pyro_latents.errors import UserError
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import ImportanceSampling, log_evidence_of_batches
from pyro_latents.evaluation.images import prior_means, reconstructions
from pyro_latents.guides.refined import unrefined
from pyro_latents.plots import image_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyro_latents.recipes.recipe import Recipe
    from pyro_latents.training.svi_module import SVIModule

# Images in a row of a figure.
COLUMNS = 12


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """The hyper-parameters of a recipe, and how the story's parts are built from them.

    Every field is an option of `pyro-latents train RECIPE` and a keyword of `zoo.recipe`. A story
    subclasses this once; each of its recipes is an instance, whose defaults are the paper's.

    Args:
        data: Name of the data source (`pyro_latents.data.sources`).
        epochs: Passes over the training data.
        batch_size: Data points in a gradient step, over all devices together.
        learning_rate: Step size of Adam.
        halve_every: Epochs after which the learning rate is halved, again and again; 0 for never.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        patience: Epochs without a better validation loss after which training stops; 0 for never.
        validation: Training images set apart to watch the loss on.

    Implementing a story:
        - name ``story``, ``paper`` and ``guides`` (the first guide is the default);
        - write ``build_model``, ``build_guide``, ``build_loss`` and ``build_batches``;
        - add a field for each hyper-parameter, with its table in the paper beside it;
        - override ``metrics`` where the story measures something of its own;
        - override ``honest_split`` and ``image_pair`` where a batch is more than an image.
    """

    story: ClassVar[str]
    paper: ClassVar[str]
    guides: ClassVar[tuple[str, ...]]

    data: str
    epochs: int = 20
    batch_size: int = 100
    learning_rate: float = 1e-3
    halve_every: int = 0
    gradient_clip: float = 0.0
    patience: int = 0
    validation: int = 10_000

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must be positive; got {getattr(self, name)}."
                )
        for name in ("halve_every", "gradient_clip", "patience", "validation"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must not be negative; got {getattr(self, name)}."
                )
        if self.patience and not self.validation:
            raise UserError("--patience watches the validation loss: give --validation as well.")

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of one data point."""
        return SHAPES[self.data]

    @abstractmethod
    def build_model(self, splits: Callable[[], Splits]) -> nn.Module:
        """Return the model; ``splits()`` loads the data for a model that is built around them."""

    @abstractmethod
    def build_guide(self, name: str, model: nn.Module) -> nn.Module:
        """Return the guide of that name (one of ``guides``), fitting the model's sites."""

    @abstractmethod
    def build_loss(self) -> ELBO:
        """Return the objective, a sum over the data plate in nats."""

    @abstractmethod
    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the maker of batches of ``examples``, one of the parts of ``splits``."""

    def build_optimizer(
        self, module: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        """Return the optimiser, and a schedule that is stepped once an epoch or None."""
        # The fused form is the same update and saves much of its time.
        optimizer = torch.optim.Adam(module.parameters(), lr=self.learning_rate, fused=True)
        if not self.halve_every:
            return optimizer, None
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, self.halve_every, gamma=0.5)

    def training_module(self, recipe: Recipe) -> SVIModule:
        """Return the Lightning module that trains the recipe."""
        # Lightning takes seconds to import, and only training needs it.
        from pyro_latents.training.svi_module import SVIModule

        return SVIModule(
            recipe.model, recipe.guide, recipe.loss, self.build_optimizer, seed=recipe.seed
        )

    def metrics(
        self, recipe: Recipe, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return what `pyro-latents evaluate` reports of the test data, by name.

        Args:
            recipe: The trained recipe.
            batches: The maker of the test batches.
            sampling: How the marginal likelihood is estimated.
        """
        terms = bound_terms(recipe.model, recipe.guide, batches, seed=recipe.seed)
        found = log_evidence_of_batches(
            recipe.model,
            recipe.guide,
            batches,
            num_particles=sampling.particles,
            points=sampling.points,
            seed=recipe.seed,
        )
        return {
            **terms,
            "log_likelihood": found.log_evidence.mean().item(),
            "log_likelihood_particles": sampling.particles,
            "log_likelihood_points": len(found.log_evidence),
            "k_hat_above_0.7": 100 * (found.k_hat > 0.7).double().mean().item(),
            "effective_sample_size": found.ess.mean().item(),
        }

    def figures(self, recipe: Recipe, batches: BatchMaker) -> dict[str, Figure]:
        """Return the pictures that `pyro-latents plot` draws of a run, by file name.

        Args:
            recipe: The trained recipe.
            batches: The maker of the test batches.
        """
        loader = Batches(batches, COLUMNS, seed=recipe.seed, shuffle=False)
        batch = loader.batch(0)
        rows = {
            "test images": batch[0],
            "reconstructions": reconstructions(recipe.model, recipe.guide, *batch),
            "prior draws": prior_means(recipe.model, len(batch[0])),
        }
        return {"images": image_rows(rows)} if len(self.x_shape) == 3 else {}

    def honest_split(self, recipe: Recipe, test: Examples, *, seed: int) -> HonestSplit | None:
        """Return what `pyro-latents check` hides of a data point, or None for nothing.

        Here it is the right half of an image, where there is an `image_pair`.

        Args:
            recipe: The trained recipe.
            test: The data points to check.
            seed: Of all that is random in the split itself.
        """
        pair = self.image_pair(recipe)
        if pair is None:
            return None
        return half_images(
            *pair,
            lambda examples: self.build_batches(examples, recipe.splits),
            test,
            seed=seed,
        )

    def image_pair(self, recipe: Recipe) -> tuple[Callable, Callable] | None:
        """Return a model and a guide that are called with images alone, or None if there are none.

        `pyro-latents check` turns images with them. A refined guide is given without refinement:
        it is the encoder that may or may not turn along.
        """
        few = self.build_batches(recipe.splits.test.take(slice(2)), recipe.splits)
        batch = Batches(few, len(few), seed=0, shuffle=False).batch(0)
        if len(batch) != 1 or len(self.x_shape) != 3:
            return None
        return recipe.model, unrefined(recipe.guide)
