"""Recipes of the EquiVAE with few labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import Metrics
from pyro_latents.fields import NotNegative, Positive, Share
from pyro_latents.guides.equivae import SemiSupervisedGuide
from pyro_latents.models.equivae import EquiVAE, SemiSupervisedEquiVAE
from pyro_latents.stories.equivae.batches import Mixed, WithClassSets, balanced_labels, without
from pyro_latents.stories.equivae.metrics import unlabelled_metrics
from pyro_latents.stories.equivae.networks import FEATURES, CodeClassifier, LabelClassifier
from pyro_latents.stories.equivae.objective import SemiSupervisedBound
from pyro_latents.stories.equivae.recipes import STREET, SVHN, EquiVAEStory
from pyro_latents.stories.story import Parts
from pyro_latents.training.plan import Phase, Plan, Weight


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedStory(EquiVAEStory):
    """The EquiVAE of Feige (2019) with few labels, section 2.3: equation (7).

    Each step has as many labelled points as unlabelled ones (`batches.Mixed`), and each epoch
    all of both: with ``labelled_weight`` at 1, of 100 labels and 54,900 unlabelled points, each
    labelled one counts 549 times an epoch. The paper says that it weighs neither term.

    Trained on equation (7) from the start, 100 labels end at 41 % of errors: the bound of an
    unlabelled point with a class says little before the decoder heeds `r`, and `q(y | x)` follows
    it into clusters that are not the classes and never leaves them again. Against that there are:
    dropout in `q(y | x)`; a start on the labelled points alone (``warm_up``), after which
    unlabelled ones come in slowly (``ramp``); and a time in which unlabelled points teach the
    encoders and the decoder with the labels that `q(y | x)` gives them, and do not teach
    `q(y | x)` yet (``label_delay``, ``label_ramp``).

    With ``labelled_weight`` at 0.05 in the place of 1 the decoder does without `r`: classes are 1
    to 8 nats apart and not 30 to 40 (MNIST, 100 labels). RESULTS.md has what the schedules of the
    recipes end at, beside classifiers that are trained on the labels alone.

    Args:
        labels: The number of labelled points, equally many of each class. A ``pool`` of as many
            as a class has gives unlabelled points the class codes of all labelled ones.
        label_seed: Of the choice of the labelled points.
        labelled_weight: What a labelled point of a step counts beside an unlabelled one. At 1
            their sums over an epoch are alike; the number of labels over that of unlabelled points
            gives equation (7) as printed, where each point counts once an epoch.
        label_weight: Weight of `log q(y | x)` in the terms of labelled points, 0 for none.
        label_posterior: `q(y | x)` by a ``network`` of its own, by one ``shared`` with the
            equivariant encoder up to its last convolution, which unlabelled points train too, or
            by the ``distance`` of `f_inv(x)` from the codes of the classes. A ``deform`` is for
            `f_inv` and the network alike, and not for a shared one, which `q(v | r, x)` reads.
        label_dropout: Of the network of `q(y | x)`.
        warm_up: Epochs with the terms of labelled points alone.
        ramp: Epochs after that in which the weight of unlabelled points grows from 0 to 1.
        label_delay: Epochs after the warm-up in which unlabelled points do not train `q(y | x)`.
        label_ramp: Epochs after that in which their share in its gradient grows from 0 to 1.
    """

    name = "equivae-semi"
    model_kind = SemiSupervisedEquiVAE

    epochs: Positive[int] = 20
    learning_rate: Positive[float] = 1e-3
    halve_every: NotNegative[int] = 0
    r_dim: Positive[int] = 8
    v_dim: Positive[int] = 8
    m_max: Positive[int] = 4
    labels: Positive[int] = 100
    label_seed: int = 0
    labelled_weight: Positive[float] = 1.0
    label_weight: NotNegative[float] = 1.0
    label_posterior: Literal["network", "shared", "distance"] = "network"
    label_dropout: Share[float] = 0.5
    warm_up: NotNegative[float] = 1.0
    ramp: NotNegative[float] = 1.0
    label_delay: NotNegative[float] = 4.0
    label_ramp: NotNegative[float] = 4.0

    def build_guide(self, name: str, model: nn.Module) -> SemiSupervisedGuide:
        """Return the paper's guide, or another family of `v` on the same encoder."""
        assert isinstance(model, EquiVAE)
        classes, dropout = model.num_classes, self.label_dropout
        shared = self.label_posterior == "shared"
        classifier: nn.Module | None = None
        if shared:
            classifier = CodeClassifier(FEATURES, classes, dropout)
        elif self.label_posterior == "network":
            classifier = LabelClassifier(self.x_shape, classes, self.width, dropout, self.deform)
        parts = self.guide_parts(name)
        return SemiSupervisedGuide(model.invariant, *parts, classifier, shared=shared)

    def build_loss(self) -> SemiSupervisedBound:
        """Return the bound of equation (7), the sum over classes exact."""
        return SemiSupervisedBound(
            labelled_weight=self.labelled_weight, label_weight=self.label_weight
        )

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return the maker of mixed batches, or outside of training that of unlabelled ones."""
        examples, table = getattr(splits, split), self.class_table(splits)
        if split != "train":
            return WithClassSets(examples, table, self.m_max)
        # Whole batches, so that none is left out of an epoch, and no labelled point with it.
        rest = without(examples, self._labelled_index(splits), multiple_of=self.batch_size)
        if not len(rest):
            raise UserError(
                f"--labels {self.labels} leaves no batch of {self.batch_size} unlabelled points "
                f"of {len(examples)}: give fewer labels or a smaller --batch-size."
            )
        return Mixed(rest, table, self.m_max, self.pool)

    def build_plan(self, parts: Parts) -> Plan:
        """Return a start on the labelled points alone, then all with weights that grow."""
        loss: Any = parts.loss
        steps = (len(parts.splits.train) - self.labels) // self.batch_size  # of an epoch
        return replace(
            super().build_plan(parts),
            phases={
                "labelled": Phase(("all",), loss=loss.of_labelled()),
                "both": Phase(("all",)),
            },
            phase_of=lambda step: "both" if self.unlabelled_weight(step / steps) else "labelled",
            weights=(
                Weight(self.unlabelled_weight, loss.unlabelled_weight),
                Weight(self.label_gradient, loss.label_gradient),
            ),
            # Nothing else trains a network of `q(y | x)` on labelled points.
            steps_use_all_parameters=bool(self.label_weight),
        )

    def unlabelled_weight(self, epochs: float) -> float:
        """Return what the terms of unlabelled points count after so many epochs."""
        return _risen(epochs - self.warm_up, self.ramp)

    def label_gradient(self, epochs: float) -> float:
        """Return the share that they have in the gradient of `q(y | x)`."""
        return _risen(epochs - self.warm_up - self.label_delay, self.label_ramp)

    def labelled(self, splits: Splits) -> Examples:
        """Return the points whose labels are known."""
        return splits.train.take(self._labelled_index(splits))

    def _labelled_index(self, splits: Splits) -> Tensor:
        return balanced_labels(splits.train, self.labels, splits.num_classes, seed=self.label_seed)

    def metrics(self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling) -> Metrics:
        """Return what is known of test points without their labels, and the errors.

        ``elbo`` is the bound of equation (6); the others are those of
        `metrics.unlabelled_metrics`.
        """
        with self.measured(parts):
            found = unlabelled_metrics(parts, batches.examples, sampling)
        return {"elbo": found.pop("elbo_unlabelled"), **found}


def _risen(since: float, duration: float) -> float:
    """A line from 0 to 1 over a duration; a step where that is zero."""
    return float(since >= 0) if duration == 0 else min(1.0, max(0.0, since / duration))


# The embedded digits are 1,797 small images: more and smaller steps in as many epochs.
SLOWLY: dict[str, Any] = dict(epochs=40, warm_up=4, ramp=2, label_delay=10, label_ramp=6)

RECIPES: dict[str, SemiSupervisedStory] = {
    "equivae-semi-digits": SemiSupervisedStory(
        data="digits", validation=180, batch_size=50, v_dim=4, **SLOWLY
    ),
    "equivae-semi-mnist": SemiSupervisedStory(data="mnist"),
    "equivae-semi-svhn": SemiSupervisedStory(**SVHN, labels=1000, r_dim=16, v_dim=16),
    "equivae-semi-street-mnist": SemiSupervisedStory(**STREET, labels=1000, r_dim=16, v_dim=16),
}
