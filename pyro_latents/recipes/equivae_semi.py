"""Recipes of the EquiVAE with few labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.sets import Mixed, WithClassSets, balanced_labels, without
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.guides.equivae import SemiSupervisedGuide
from pyro_latents.losses.enumeration import TraceEnum_ELBO
from pyro_latents.models.equivae import SemiSupervisedEquiVAE
from pyro_latents.nets.feige import FEATURES, CodeClassifier, LabelClassifier
from pyro_latents.recipes.equivae import SVHN, EquiVAESettings, is_part
from pyro_latents.recipes.equivae_metrics import measured, unlabelled_figures

if TYPE_CHECKING:
    from pyro_latents.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class EquiVAESemiSettings(EquiVAESettings):
    """The EquiVAE of Feige (2019) with few labels, section 2.3: equation (7).

    Each step has as many labelled points as unlabelled ones (`data.sets.Mixed`), and each epoch
    all of both. Trained on equation (7) from the start, 100 labels end at 41 % of errors: the
    bound of an unlabelled point with a class says little before the decoder heeds `r`, and
    `q(y | x)` follows it into clusters that are not the classes and never leaves them again.
    Against that there are: dropout in `q(y | x)`; a start on the labelled points alone
    (``warm_up``), after which unlabelled ones come in slowly (``ramp``); and a time in which
    unlabelled points teach the encoders and the decoder with the labels that `q(y | x)` gives
    them, and do not teach `q(y | x)` yet (``label_delay``, ``label_ramp``).

    What short trials showed (MNIST, 100 labels, 10,000 images, 250 to 350 steps, one seed): with
    ``labelled_weight`` at 0.05 and the label term at its full weight the decoder does without
    `r` (classes are 1 to 8 nats apart) and `q(y | x)` falls from 23 to 30 % of errors once it
    follows; at 1 the classes are 30 to 40 nats apart, and the class that the model itself prefers
    goes from 54 to 34 % of errors while `q(y | x)` is held. With the schedule below (20 epochs of
    20,000 images, one seed) `q(y | x)` ends at 6.9 % with 100 labels and at 3.3 % with 1,000; a
    classifier trained on the labels alone is at 18.7 and 5.3 %. On the embedded digits, with 100
    labels, it ends at 6.1 %, beside 8.6 %.

    Args:
        labels: The number of labelled points, equally many of each class.
        label_seed: Of the choice of the labelled points.
        labelled_weight: What a labelled point of a step counts beside an unlabelled one. One
            labelled point an unlabelled one makes their sums over an epoch alike; the number of
            labels over that of unlabelled points gives equation (7) as printed, where each point
            counts once an epoch.
        label_weight: Weight of `log q(y | x)` in the terms of labelled points, 0 for none.
        label_posterior: `q(y | x)` by a ``network`` of its own, by one ``shared`` with the
            equivariant encoder up to its last convolution, which unlabelled points train too, or
            by the ``distance`` of `f_inv(x)` from the codes of the classes.
        label_dropout: Of the network of `q(y | x)`.
        warm_up: Epochs with the terms of labelled points alone.
        ramp: Epochs after that in which the weight of unlabelled points grows from 0 to 1.
        label_delay: Epochs after the warm-up in which unlabelled points do not train `q(y | x)`.
        label_ramp: Epochs after that in which their share in its gradient grows from 0 to 1.
    """

    story: ClassVar[str] = "equivae-semi"

    epochs: int = 20
    learning_rate: float = 1e-3
    halve_every: int = 0
    r_dim: int = 8
    v_dim: int = 8
    m_max: int = 4
    labels: int = 100
    label_seed: int = 0
    labelled_weight: float = 1.0
    label_weight: float = 1.0
    label_posterior: Literal["network", "shared", "distance"] = "network"
    label_dropout: float = 0.5
    warm_up: float = 1.0
    ramp: float = 1.0
    label_delay: float = 4.0
    label_ramp: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("labels", "labelled_weight"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must be positive; got {getattr(self, name)}."
                )
        for name in ("label_weight", "warm_up", "ramp", "label_delay", "label_ramp"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"--{name.replace('_', '-')} must not be negative; got {getattr(self, name)}."
                )
        if not 0 <= self.label_dropout < 1:
            raise UserError(
                f"--label-dropout must be at least 0 and below 1; got {self.label_dropout}."
            )

    def build_model(self, splits: Callable[[], Splits]) -> SemiSupervisedEquiVAE:
        """Return the model, with the class frequencies of the labelled points."""
        parts = self.model_parts(splits())
        return SemiSupervisedEquiVAE(**parts, labelled_weight=self.labelled_weight)

    def build_guide(self, name: str, model: nn.Module) -> SemiSupervisedGuide:
        """Return the paper's guide, or another family of `v` on the same encoder."""
        assert isinstance(model, SemiSupervisedEquiVAE)
        classifier: nn.Module | None = None
        if self.label_posterior == "shared":
            classifier = CodeClassifier(FEATURES, model.num_classes, self.label_dropout)
        elif self.label_posterior == "network":
            classifier = LabelClassifier(
                self.x_shape, model.num_classes, self.width, self.label_dropout
            )
        return SemiSupervisedGuide(
            *self.guide_parts(name),
            model,
            classifier,
            shared=self.label_posterior == "shared",
            label_weight=self.label_weight,
        )

    def build_loss(self) -> ELBO:
        """Return the bound of equation (7), the sum over classes exact."""
        # In the warm-up there is no class to sum over.
        return TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return the maker of mixed batches, or outside of training that of unlabelled ones."""
        table = self.class_table(splits)
        if not is_part(examples, splits.train):
            return WithClassSets(examples, table, self.m_max)
        # Whole batches, so that none is left out of an epoch, and no labelled point with it.
        rest = without(examples, self._labelled_index(splits), multiple_of=self.batch_size)
        if not len(rest):
            raise UserError(
                f"--labels {self.labels} leaves no batch of {self.batch_size} unlabelled points "
                f"of {len(examples)}: give fewer labels or a smaller --batch-size."
            )
        return Mixed(rest, table, self.m_max)

    def labelled(self, splits: Splits) -> Examples:
        """Return the points whose labels are known."""
        return splits.train.take(self._labelled_index(splits))

    def _labelled_index(self, splits: Splits) -> Tensor:
        return balanced_labels(splits.train, self.labels, splits.num_classes, seed=self.label_seed)

    def before_step(self, recipe: Recipe) -> Callable[[float | None], None]:
        """Return what sets the weights of the schedule; outside of training they are one."""

        def set_weights(epochs: float | None) -> None:
            whole = epochs is None
            since = 0.0 if whole else epochs - self.warm_up
            recipe.model.unlabelled_weight = 1.0 if whole else _risen(since, self.ramp)
            share = 1.0 if whole else _risen(since - self.label_delay, self.label_ramp)
            recipe.guide.label_gradient = share

        return set_weights

    def metrics(
        self, recipe: Recipe, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return what is known of test points without their labels, and the errors.

        ``elbo`` is the bound of equation (6); the others are those of
        `equivae_metrics.unlabelled_figures`.
        """
        with measured(recipe, self.labelled(recipe.splits)):
            found = unlabelled_figures(recipe, batches.examples, sampling)
        return {"elbo": found.pop("elbo_unlabelled"), **found}


def _risen(since: float, duration: float) -> float:
    """A line from 0 to 1 over a duration; a step where that is zero."""
    return float(since >= 0) if duration == 0 else min(1.0, max(0.0, since / duration))


RECIPES: dict[str, EquiVAESemiSettings] = {
    # The embedded digits are 1,797 small images: more and smaller steps in as many epochs.
    "equivae-semi-digits": EquiVAESemiSettings(
        data="digits",
        epochs=40,
        validation=180,
        batch_size=50,
        v_dim=4,
        warm_up=4,
        ramp=2,
        label_delay=10,
        label_ramp=6,
    ),
    "equivae-semi-mnist": EquiVAESemiSettings(data="mnist"),
    "equivae-semi-svhn": EquiVAESemiSettings(
        **{**SVHN, "labels": 1000, "epochs": 20, "halve_every": 0, "r_dim": 16, "v_dim": 16}
    ),
}
