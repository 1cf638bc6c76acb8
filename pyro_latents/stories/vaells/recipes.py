"""Recipes of VAELLS: the tables of Connor et al. (2020)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from pyro_latents.checks.splits import HonestSplit
from pyro_latents.data.batches import BatchMaker, Plain
from pyro_latents.data.examples import Splits
from pyro_latents.data.manifolds import circle_anchors, swiss_roll_anchors
from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import Metrics
from pyro_latents.fields import Positive
from pyro_latents.guides.vaells import AmortisedTransportGuide, TransportGuide
from pyro_latents.live import Live
from pyro_latents.models.vaells import VAELLS
from pyro_latents.nets.mlp import MLP
from pyro_latents.stories.story import Parts
from pyro_latents.stories.transformation import Transformation
from pyro_latents.stories.vaells.figures import figures
from pyro_latents.stories.vaells.images import (
    ConnorDecoder,
    ConnorEncoder,
    RotatedWithAnchors,
    evenly_turned,
)
from pyro_latents.stories.vaells.live import moving_along_operators
from pyro_latents.stories.vaells.metrics import EndsOfPaths, measure
from pyro_latents.stories.vaells.plan import PhasedStory
from pyro_latents.transport import TransportOperators
from pyro_latents.transport.coefficients import Search


class Labelled(Plain):
    """The data points as they are with their classes: ``(x, y)``, or ``(x,)`` without labels."""

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The data points at ``index``, of shape `batch ...`, and their labels."""
        x, y = self.examples.x[index], self.examples.y
        return (x,) if y is None else (x, y[index])


@dataclass(frozen=True, kw_only=True)
class VAELLSStory(PhasedStory):
    """VAELLS with the training of appendix B; the defaults are table 3's, of the swiss roll.

    The numbers of the objective and of the phases are those of `PhasedStory`.

    Args:
        z_dim: Size of the code.
        num_anchors: Anchor points for each class, N_a.
        restarts: Random starts of the coefficient inference.
        search: What is searched for coefficients: `local` (the paper's), `wide` or, for a single
            operator, `global`.
    """

    name = "vaells"
    paper = "Connor, Canal and Rozell 2020"
    guides = ("paper", "amortised")
    # Coefficients are inferred to more digits than half precision has.
    precisions = ("32-true", "64-true")

    z_dim: Positive[int] = 2
    num_anchors: Positive[int] = 4
    restarts: Positive[int] = 2
    search: Search = "wide"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.x_shape) == 3:
            self._require_images(28)
        if self.search == "global" and self.num_operators > 1:
            raise UserError("--search global needs --num-operators 1; choose wide.")

    def build_model(self, splits: Callable[[], Splits]) -> VAELLS:
        """Return the model with the networks of table 2 or 5, and anchors from the data."""
        size, z_dim = self.x_shape[0], self.z_dim
        encoder: nn.Module
        decoder: nn.Module
        if len(self.x_shape) == 1:
            encoder, decoder = MLP(size, [512], z_dim), MLP(z_dim, [512], size)
        else:
            encoder, decoder = ConnorEncoder(z_dim, size), ConnorDecoder(z_dim, size)
        scale = self.latent_scale or 1.0
        operators = TransportOperators(
            self.num_operators, z_dim, restarts=self.restarts, search=self.search, scale=scale
        )
        return VAELLS(
            encoder,
            decoder,
            operators,
            Normal(self.x_scale, len(self.x_shape)),
            self._anchors(splits()),
            inference_weight=self.zeta_p,
            coefficient_rate=self.prior_rate,
            noise_scale=self.prior_noise_scale,
            closest_anchor=self.closest_anchor,
            learn_anchors=self.learns_anchors,
        )

    def build_guide(self, name: str, model: nn.Module) -> TransportGuide:
        """Return the paper's guide, or the one with a network for the coefficients."""
        assert isinstance(model, VAELLS)
        kind = AmortisedTransportGuide if name == "amortised" else TransportGuide
        return kind(model, coefficient_rate=self.rate, noise_scale=self.noise_scale)

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return data points with their classes, or turned images with turned anchors."""
        examples = getattr(splits, split)
        if self.own_anchors:
            return RotatedWithAnchors(examples, self.num_anchors, fresh=split == "train")
        return Labelled(examples)

    def metrics(self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling) -> Metrics:
        """Return two columns of log-likelihood, errors, and what is known of the manifold."""
        return measure(parts, batches, sampling)

    def honest_split(self, parts: Parts, *, points: int, seed: int) -> HonestSplit:
        """Hide the end of a path, which is the data point; its start is seen (`EndsOfPaths`)."""
        guide, batches = EndsOfPaths(parts.model), parts.batches("test", limit=points)
        return HonestSplit("end given start of path", parts.model, guide, batches)

    def build_transformation(self, parts: Parts) -> Transformation:
        """Return the path, by its coefficients `c`; they are inferred from its two ends."""
        model = parts.model

        def infer(start: Tensor, end: Tensor) -> Tensor:
            return model.operators.infer(
                model.code(start), model.code(end), model.inference_weight
            )[0]

        def apply(x: Tensor, c: Tensor | None) -> Tensor:
            z = model.code(x)
            return model.observation(z if c is None else model.operators(c, z)).mean

        ends = "where a path begins", "where it ends"
        return Transformation("c", self.num_operators, ends, infer, apply)

    def image_pair(self, parts: Parts) -> tuple[Callable, Callable] | None:
        """Return model and guide as they are, which need no class; none for plain vectors."""
        return (parts.model, parts.guide) if len(self.x_shape) == 3 else None

    def figures(self, parts: Parts) -> dict[str, Figure]:
        """Draw the orbits of the operators, and what every story of images draws."""
        return {**figures(parts), **super().figures(parts)}

    def live(self, parts: Parts) -> Live:
        """Return the coefficients, which move codes along the operators."""
        return moving_along_operators(parts)

    def _anchors(self, splits: Splits) -> Tensor:
        """Anchors, of shape `num_classes num_anchors *x_shape`."""
        if self.data == "swiss-roll":
            return swiss_roll_anchors(self.num_anchors).x[None]
        if self.data == "circles":
            return circle_anchors(self.num_anchors).x.unflatten(0, (-1, self.num_anchors))
        train = splits.train
        # Data of one's own may have no classes: they are all of one.
        y = torch.zeros(len(train)).long() if train.y is None else train.y.cpu()
        classes = range(max(1, splits.num_classes))
        chosen = [self._chosen(y, label).to(train.device) for label in classes]
        if self.own_anchors:
            return evenly_turned(train.extras["upright"][torch.cat(chosen)], self.num_anchors)
        return train.x[torch.stack(chosen)]

    def _chosen(self, y: Tensor, label: int) -> Tensor:
        """The training points that anchors of a class are made of."""
        of_class = (y == label).nonzero()[:, 0]
        if self.own_anchors:
            if not len(of_class):
                raise UserError(
                    f"class {label} has no training point to make anchors of: use more data."
                )
            return of_class[:1]
        if len(of_class) < self.num_anchors:
            raise UserError(
                f"class {label} has {len(of_class)} training points, fewer than "
                f"--num-anchors {self.num_anchors}; use more data or fewer anchors."
            )
        return of_class[torch.randperm(len(of_class))[: self.num_anchors]]


# The paper has no validation set here, and watching one would take a third of the time. Every step
# of the operators is taken, at the largest step size of the authors' records: on trial they hardly
# move, whichever way they wind at first. After 1,000 steps the rank correlation of paths along the
# roll is .55 on trial and .99 so, on validation points of seed 0, whose first operator winds the
# wrong way. That of seed 1 has not turned round by then.
_MANIFOLD: dict[str, Any] = {
    "batch_size": 30,
    "even_codes": True,
    "validation": 0,
    "try_operators": False,
}
# The embedded digits are 1,797 small images: more epochs, and a validation set to match.
_DIGITS: dict[str, Any] = {"epochs": 120, "validation": 180, "warm_up": 4_000}

# Table 3; 3,003 steps.
_ROLL = VAELLSStory(
    data="swiss-roll",
    epochs=91,
    learning_rate=1e-4,
    operator_learning_rate=5e-4,
    candidates=200,
    **_MANIFOLD,
)
# Table 4; 4,004 steps. The 0.005 of the table throws the codes about, and so does 0.001; the 5e-5
# of the authors' saved state leaves them a little further from circles. Every step of operators is
# taken, at the largest step size of the authors' records: on trial the codes of seed 0 ended at
# 34 % from a path, in the place of 6. Chosen on validation points. Rates fall to zero, as codes
# keep moving else: training points of seed 11 end at 3.9 and 3.2 %, in the place of 4.2 and 4.0.
_CIRCLES = VAELLSStory(
    data="circles",
    epochs=308,
    learning_rate=3e-4,
    schedule="fall",
    num_operators=4,
    num_anchors=3,
    zeta_p=5e-6,
    operator_learning_rate=7e-3,
    max_operator_learning_rate=7e-3,
    network_steps=0,
    operator_steps=0,
    restarts=1,
    search="local",
    closest_anchor=False,
    **_MANIFOLD,
)
# Table 7, with M = 4 and N_a = 8 as in section 4.
_MNIST = VAELLSStory(
    data="mnist",
    epochs=22,
    batch_size=32,
    learning_rate=1e-4,
    z_dim=6,
    num_operators=4,
    num_anchors=8,
    x_scale=1.0,
    prior_noise_scale=1.0,
    zeta_p=1e-6,
    operator_learning_rate=1e-5,
    max_operator_learning_rate=1.4e-3,
    prior_weight=1e-4,
    reconstruction_weight=1e-4,
    operator_steps=60,
    warm_up=30_000,
    restarts=1,
    search="local",
    latent_scale=10.0,
)
# Table 6; 35,000 steps are 22 epochs.
_ROTATED = replace(
    _MNIST,
    data="rotated-mnist",
    z_dim=10,
    num_operators=1,
    num_anchors=10,
    anchor_learning_rate=0.0,
    max_operator_learning_rate=8e-3,
)

RECIPES = {
    "vaells-swiss-roll": _ROLL,
    "vaells-circles": _CIRCLES,
    "vaells-rotated-mnist": _ROTATED,
    "vaells-rotated-digits": replace(_ROTATED, data="rotated-digits", **_DIGITS),
    "vaells-mnist": _MNIST,
    "vaells-digits": replace(_MNIST, data="digits", **_DIGITS),
}
