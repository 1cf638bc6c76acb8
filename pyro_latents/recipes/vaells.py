"""Recipes of VAELLS: the tables of Connor et al. (2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from pyro_latents.checks.splits import HonestSplit
from pyro_latents.data.anchored import Labelled, RotatedWithAnchors, evenly_turned
from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.manifolds import circle_anchors, swiss_roll_anchors
from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.guides.vaells import AmortisedTransportGuide, TransportGuide
from pyro_latents.losses import TraceMax_ELBO
from pyro_latents.models.vaells import VAELLS
from pyro_latents.nets.connor import ConnorDecoder, ConnorEncoder
from pyro_latents.nets.mlp import MLP
from pyro_latents.recipes.settings import Settings
from pyro_latents.recipes.vaells_ends import EndsOfPaths
from pyro_latents.recipes.vaells_metrics import measure
from pyro_latents.recipes.vaells_training import objective, phased_module
from pyro_latents.transport import TransportOperators
from pyro_latents.transport.coefficients import Search

if TYPE_CHECKING:
    from pyro_latents.recipes.recipe import Recipe
    from pyro_latents.training.phases import PhasedModule


@dataclass(frozen=True, kw_only=True)
class VAELLSSettings(Settings):
    """VAELLS with the training of appendix B; the defaults are table 3's, of the swiss roll.

    The weights are those of the authors' runs, where every squared distance has a factor 1/2
    that the formulas of appendix A lack: `zeta_1 = 1 / sigma^2` if it were the likelihood's.

    Args:
        z_dim: Size of the code.
        num_operators: Transport operators, M.
        num_anchors: Anchor points for each class, N_a.
        zeta_1: Weight of the squared reconstruction error.
        zeta_2: Weight of the squared distance of a code from the path, in the posterior.
        zeta_3: Rate of the coefficients' Laplace distribution, and their weight in the posterior.
        zeta_4: Weight of the squared distance from the path, in the prior.
        zeta_5: Weight of the coefficients in the prior.
        zeta_q: Sparsity weight in the inference of coefficients for the posterior.
        zeta_p: Sparsity weight in the inference for the prior.
        eta: Weight of the operators' squared Frobenius norm.
        noise_scale: Standard deviation of a code around its path, gamma.
        x_scale: Standard deviation of the likelihood, for draws and log-likelihoods; the weight
            of the reconstruction in training is zeta_1 whatever it is.
        anchor_learning_rate: Step size of the anchors, 0 to keep them.
        operator_learning_rate: First step size of the operators.
        max_operator_learning_rate: Largest step size of the operators. The paper gives none; it
            is read off its authors' records.
        min_operator_learning_rate: Smallest step size of the operators.
        try_operators: Whether an operator step is taken back unless its part of the objective
            improves, and the step size follows; if not, every step is taken, with the first size.
        network_steps: Steps of networks and anchors before it is the operators' turn; 0 to train
            all at once.
        operator_steps: Steps of the operators before it is the networks' turn.
        prior_weight: Factor of the prior's weights during network steps.
        reconstruction_weight: Factor of zeta_1 during operator steps.
        warm_up: Steps of the networks with the reconstruction alone.
        after_warm_up: Factor of the networks' learning rate after a warm-up.
        restarts: Random starts of the coefficient inference.
        search: What is searched for coefficients: `local` (the paper's), `wide` or, for a single
            operator, `global`.
        closest_anchor: Whether the prior has the closest anchor only, equation (12).
        latent_scale: What codes are divided by for the operators; 0 to choose it after the
            warm-up, such that the entries are near 1.
        candidates: Random dictionaries of which the best becomes the first one; 0 for the
            paper's single draw.
        linear_start: Whether encoder and decoder begin as linear maps, to the data's principal
            components and back. Of dense networks only.
        even_codes: Whether the last layer of the encoder begins such that codes have unit second
            moments in all directions.
    """

    story: ClassVar[str] = "vaells"
    paper: ClassVar[str] = "Connor, Canal and Rozell 2020"
    guides: ClassVar[tuple[str, ...]] = ("paper", "amortised")

    z_dim: int = 2
    num_operators: int = 1
    num_anchors: int = 4
    zeta_1: float = 0.01
    zeta_2: float = 1.0
    zeta_3: float = 1.0
    zeta_4: float = 1.0
    zeta_5: float = 0.01
    zeta_q: float = 1e-6
    zeta_p: float = 5e-5
    eta: float = 0.01
    noise_scale: float = 1e-3
    x_scale: float = 1.0
    anchor_learning_rate: float = 1e-4
    operator_learning_rate: float = 5e-5
    max_operator_learning_rate: float = 5e-4
    min_operator_learning_rate: float = 0.0
    try_operators: bool = True
    network_steps: int = 20
    operator_steps: int = 20
    prior_weight: float = 0.01
    reconstruction_weight: float = 0.001
    warm_up: int = 0
    after_warm_up: float = 0.1
    restarts: int = 2
    search: Search = "wide"
    closest_anchor: bool = True
    latent_scale: float = 1.0
    candidates: int = 0
    linear_start: bool = False
    even_codes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.network_steps) != bool(self.operator_steps):
            raise UserError("give both --network-steps and --operator-steps, or neither.")
        if self.linear_start and len(self.x_shape) > 1:
            raise UserError("--linear-start needs dense networks, which images do not have here.")
        if self.search == "global" and self.num_operators > 1:
            raise UserError("--search global needs --num-operators 1; choose wide.")

    @property
    def own_anchors(self) -> bool:
        """Whether each data point has anchors of its own: its turned views."""
        return self.data.startswith("rotated")

    def build_model(self, splits: Callable[[], Splits]) -> VAELLS:
        """Return the model with the networks of table 2 or 5, and anchors from the data."""
        x_shape = self.x_shape
        encoder: nn.Module
        decoder: nn.Module
        if len(x_shape) == 1:
            encoder = MLP(x_shape[0], [512], self.z_dim)
            decoder = MLP(self.z_dim, [512], x_shape[0])
        else:
            encoder = ConnorEncoder(self.z_dim, x_shape[0])
            decoder = ConnorDecoder(self.z_dim, x_shape[0])
        operators = TransportOperators(
            self.num_operators,
            self.z_dim,
            restarts=self.restarts,
            search=self.search,
            scale=self.latent_scale or 1.0,
        )
        return VAELLS(
            encoder,
            decoder,
            operators,
            Normal(self.x_scale, len(x_shape)),
            self._anchors(splits()),
            inference_weight=self.zeta_p,
            coefficient_rate=self.zeta_3,
            noise_scale=self.noise_scale,
            frobenius=self.eta,
            closest_anchor=self.closest_anchor,
            learn_anchors=self.anchor_learning_rate > 0 and not self.own_anchors,
        )

    def build_guide(self, name: str, model: nn.Module) -> TransportGuide:
        """Return the paper's guide, or the one with a network for the coefficients."""
        assert isinstance(model, VAELLS)
        if name == "amortised":
            return AmortisedTransportGuide(model, self.z_dim)
        return TransportGuide(model, self.zeta_q)

    def build_loss(self) -> TraceMax_ELBO:
        """Return the objective of appendix A with all weights at their full value."""
        return objective(self)

    def build_batches(self, examples: Examples, splits: Splits) -> BatchMaker:
        """Return data points with their classes, or turned images with turned anchors."""
        if self.own_anchors:
            training = examples.x.data_ptr() == splits.train.x.data_ptr()
            return RotatedWithAnchors(examples, self.num_anchors, fresh=training)
        return Labelled(examples)

    def training_module(self, recipe: Recipe) -> PhasedModule:
        """Return the module that goes through the phases of appendix B."""
        return phased_module(self, recipe)

    def metrics(
        self, recipe: Recipe, batches: BatchMaker, sampling: ImportanceSampling
    ) -> dict[str, float]:
        """Return the paper's log-likelihood and error, and what is known of the manifold."""
        return measure(recipe, batches, sampling.particles)

    def honest_split(self, recipe: Recipe, test: Examples, *, seed: int) -> HonestSplit:
        """Hide the end of a path, which is the data point; its start is seen (`EndsOfPaths`)."""
        batches = self.build_batches(test, recipe.splits)
        return HonestSplit(
            "end given start of path", recipe.model, EndsOfPaths(recipe.model), batches
        )

    def image_pair(self, recipe: Recipe) -> tuple[Callable, Callable] | None:
        """Return model and guide as they are, which need no class; none for plain vectors."""
        return (recipe.model, recipe.guide) if len(self.x_shape) == 3 else None

    def _anchors(self, splits: Splits) -> Tensor:
        """Anchors, of shape `num_classes num_anchors *x_shape`."""
        if self.data == "swiss-roll":
            return swiss_roll_anchors(self.num_anchors).x[None]
        if self.data == "circles":
            x = circle_anchors(self.num_anchors).x
            return x.unflatten(0, (-1, self.num_anchors))
        train = splits.train
        classes = max(1, splits.num_classes)
        y = torch.zeros(len(train), dtype=torch.long) if train.y is None else train.y.cpu()
        if self.own_anchors:
            first = torch.stack([(y == label).nonzero()[0, 0] for label in range(classes)])
            upright = train.extras["upright"][first.to(train.device)]
            return evenly_turned(upright, self.num_anchors)
        rows = []
        for label in range(classes):
            of_class = (y == label).nonzero()[:, 0]
            if len(of_class) < self.num_anchors:
                raise UserError(
                    f"class {label} has {len(of_class)} training points, fewer than "
                    f"--num-anchors {self.num_anchors}; use more data or fewer anchors."
                )
            rows.append(of_class[torch.randperm(len(of_class))[: self.num_anchors]])
        return train.x[torch.stack(rows).to(train.device)]


# Of 28x28 images with codes of several dimensions, tables 6 and 7.
_IMAGES = {
    "batch_size": 32,
    "learning_rate": 1e-4,
    "zeta_1": 1.0,
    "zeta_p": 1e-6,
    "operator_learning_rate": 1e-5,
    "prior_weight": 1e-4,
    "reconstruction_weight": 1e-4,
    "operator_steps": 60,
    "warm_up": 30_000,
    "restarts": 1,
    "search": "local",
    "latent_scale": 10.0,
}

RECIPES = {
    # Table 3; 3,003 steps. The paper has no validation set here.
    "vaells-swiss-roll": VAELLSSettings(
        data="swiss-roll",
        epochs=91,
        batch_size=30,
        learning_rate=1e-4,
        validation=500,
        x_scale=0.02,
        candidates=200,
        even_codes=True,
    ),
    # Table 4; 4,004 steps. The networks' step size is that of the authors' saved state: the 0.005
    # of the table throws the codes about.
    "vaells-circles": VAELLSSettings(
        data="circles",
        epochs=308,
        batch_size=30,
        learning_rate=5e-5,
        validation=200,
        x_scale=0.02,
        num_operators=4,
        num_anchors=3,
        zeta_p=5e-6,
        operator_learning_rate=4e-4,
        max_operator_learning_rate=7e-3,
        network_steps=0,
        operator_steps=0,
        restarts=1,
        search="local",
        closest_anchor=False,
        linear_start=True,
        even_codes=True,
    ),
    # Table 6; 35,000 steps are 22 epochs.
    "vaells-rotated-mnist": VAELLSSettings(
        data="rotated-mnist",
        epochs=22,
        z_dim=10,
        num_operators=1,
        num_anchors=10,
        anchor_learning_rate=0.0,
        max_operator_learning_rate=8e-3,
        **_IMAGES,
    ),
    "vaells-rotated-digits": VAELLSSettings(
        data="rotated-digits",
        epochs=120,
        z_dim=10,
        num_operators=1,
        num_anchors=10,
        anchor_learning_rate=0.0,
        max_operator_learning_rate=8e-3,
        validation=180,
        **{**_IMAGES, "warm_up": 4_000},
    ),
    # Table 7, with M = 4 and N_a = 8 as in section 4.
    "vaells-mnist": VAELLSSettings(
        data="mnist",
        epochs=22,
        z_dim=6,
        num_operators=4,
        num_anchors=8,
        max_operator_learning_rate=1.4e-3,
        **_IMAGES,
    ),
    "vaells-digits": VAELLSSettings(
        data="digits",
        epochs=120,
        z_dim=6,
        num_operators=4,
        num_anchors=8,
        max_operator_learning_rate=1.4e-3,
        validation=180,
        **{**_IMAGES, "warm_up": 4_000},
    ),
}
