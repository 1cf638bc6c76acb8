r"""The objective of VAELLS, and its training in the phases of appendix B of Connor et al. (2020).

**The objective**, for a data point x and a code z that the guide has drawn, is

.. math::
    \hat E(x) = \tfrac{\zeta_1}{2} |x - g(z)|^2
        - \tfrac{\zeta_2}{2} |z - T(c^*) f(x)|^2 - \zeta_3 |c^*|_1
        - \log \sum_k \exp\big(- \tfrac{\zeta_4}{2} |z - T(c^*_k) f(a_k)|^2
        - \zeta_5 |c^*_k|_1\big),

with the coefficients :math:`c^* = \arg\min_c \tfrac12 |z - T(c) f(x)|^2 + \zeta_q |c|_1` and
:math:`c^*_k` the same from :math:`f(a_k)` with :math:`\zeta_p`; or, in the place of the sum, the k
whose minimum is lowest (equation (12)). Every squared distance has a factor 1/2 that the formulas
of appendix A lack and its authors' code has. The first term is the ``likelihood``, the next two
are the ``posterior``, the logarithm is the ``prior`` of `TraceMax_ELBO`.

**As code** it is that loss of two programs, the model and the guide, whose numbers these are:

====================  ==================================  ===================
appendix A            program                             option
====================  ==================================  ===================
:math:`\zeta_1`       inverse square of p(x | z)'s width  ``x_scale``
:math:`\zeta_2`       inverse square of the guide's       ``noise_scale``
:math:`\zeta_3`       rate of the guide                   ``rate``
:math:`\zeta_4`       inverse square of the prior's       ``prior_noise_scale``
:math:`\zeta_5`       rate of the prior                   ``prior_rate``
====================  ==================================  ===================

What is drawn is what is scored, and all weights are one but for those that the phases set. The
tables have :math:`\zeta_2 = \zeta_4 = 1` and draw codes with a width ``gamma_post`` of .001, which
no program does. On the manifolds all of their squares count a million times as much here, and the
three widths are those of that program; on images, where the likelihood has unit variance, the
guide has .001 and the prior 1.

**The operators** have a normal prior, once: :math:`\tfrac{\eta}{2} |\Psi|^2` beside the mean of
:math:`\hat E` over the data, as decay in their optimiser. Step sizes of operators and anchors, and
:math:`\eta`, are the tables', for :math:`\zeta_4 = 1`; of another one they are divided by it, and
multiplied.

**The phases**: a warm-up by the likelihood alone, nearly without movement along the operators and
without noise; then networks and anchors, with less of the prior, in turn with the operators, with
less of the likelihood. A step of the operators is taken back unless the prior improves. The paper
looks at the posterior's distance as well; but at codes that are held, of which the guide has drawn
each on one of its own paths, any step makes that distance grow and the objective fall.

A trial has its price: where coefficients are in the hundreds, as those of small operators are that
turn more than once, the curvature allows small steps only, and an operator that winds the wrong
way goes on to do so. The manifolds' recipes take every step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from pyro_latents.errors import UserError
from pyro_latents.fields import NotNegative, Positive
from pyro_latents.guides.vaells import WarmUpGuide
from pyro_latents.losses import LikelihoodLoss, TraceMax_ELBO
from pyro_latents.stories.story import Parts, Story
from pyro_latents.stories.vaells.fit import first_points, fit_prior, pairs_to_join
from pyro_latents.training.plan import Phase, Plan, Trial
from pyro_latents.transport import fit_operators

ETA = 0.01  # of all tables, for zeta_4 = 1
# Of Adam, and what is left of its learning rate after a warm-up: those of the authors' runs.
BETAS, AFTER_WARM_UP = (0.5, 0.999), 0.1
# Of the data that codes are measured on, to choose their scale and the first operators.
MEASURED = 1_000


@dataclass(frozen=True, kw_only=True)
class PhasedStory(Story):
    """The numbers of the objective and of its phases; the defaults are table 3's.

    Args:
        num_operators: Transport operators, M.
        x_scale: Standard deviation of the likelihood.
        noise_scale: Standard deviation of a code around its path in the guide.
        rate: Rate of the coefficients' distribution in the guide.
        prior_noise_scale: Standard deviation of a code around its path in the model.
        prior_rate: Rate of the coefficients' distribution in the model.
        closest_anchor: Whether the prior has the closest anchor only, equation (12).
        zeta_p: Sparsity weight in the inference of coefficients for the prior.
        anchor_learning_rate: Step size of the anchors, for zeta_4 = 1; 0 to keep them.
        operator_learning_rate: First step size of the operators, the same.
        max_operator_learning_rate: Largest step size of the operators, the same. The paper gives
            none; it is read off its authors' records.
        try_operators: Whether an operator step is taken back unless its part of the objective
            improves, and the step size follows; if not, every step is taken, with the first size.
        network_steps: Steps of networks and anchors before it is the operators' turn; 0 to train
            all at once.
        operator_steps: Steps of the operators before it is the networks' turn.
        prior_weight: Weight of the prior during network steps.
        reconstruction_weight: Weight of the likelihood during operator steps.
        warm_up: Steps of the networks with the reconstruction alone.
        latent_scale: What codes are divided by for the operators; 0 to choose it after the
            warm-up, such that the entries are near 1.
        candidates: Random dictionaries of which the best becomes the first one; 0 for the
            paper's single draw.
        linear_start: Whether encoder and decoder begin as linear maps, to the data's principal
            components and back. Of dense networks only.
        even_codes: Whether the last layer of the encoder begins such that codes have the same
            spread in all directions.
        fit_at: Step before which width and rate of the prior are fitted by likelihood
            (`pyro_latents.stories.vaells.fit`), and from which on they are those of the fit; 0 to
            keep them.
    """

    num_operators: Positive[int] = 1
    x_scale: Positive[float] = 0.01
    noise_scale: Positive[float] = 1e-3
    rate: Positive[float] = 1.0
    prior_noise_scale: Positive[float] = 1e-3
    prior_rate: Positive[float] = 0.01
    closest_anchor: bool = True
    zeta_p: NotNegative[float] = 5e-5
    anchor_learning_rate: NotNegative[float] = 1e-4
    operator_learning_rate: Positive[float] = 5e-5
    max_operator_learning_rate: Positive[float] = 5e-4
    try_operators: bool = True
    network_steps: NotNegative[int] = 20
    operator_steps: NotNegative[int] = 20
    prior_weight: NotNegative[float] = 0.01
    reconstruction_weight: NotNegative[float] = 0.001
    warm_up: NotNegative[int] = 0
    latent_scale: NotNegative[float] = 1.0
    candidates: NotNegative[int] = 0
    linear_start: bool = False
    even_codes: bool = False
    fit_at: NotNegative[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.network_steps) != bool(self.operator_steps):
            raise UserError("give both --network-steps and --operator-steps, or neither.")
        if 0 < self.fit_at <= self.warm_up:
            raise UserError("--fit-at must be after the warm-up, which has no prior to fit.")
        if self.linear_start and len(self.x_shape) > 1:
            raise UserError("--linear-start needs dense networks, which images do not have here.")

    @property
    def own_anchors(self) -> bool:
        """Whether each data point has anchors of its own, its turned views."""
        return self.data.startswith("rotated")

    @property
    def learns_anchors(self) -> bool:
        """Whether the anchors are parameters."""
        return self.anchor_learning_rate > 0 and not self.own_anchors

    def build_loss(self, *, likelihood: float = 1.0, prior: float = 1.0) -> TraceMax_ELBO:
        """Return the objective, with the weights of a phase; that of the prior is within the sum.

        The prior of equation (12) has one anchor, and no probability that it is this one.
        """
        weights = {"x": likelihood, "z": prior, "c": prior}
        return TraceMax_ELBO(
            max_plate_nesting=1,
            model_weights={**weights, "k": 0.0} if self.closest_anchor else weights,
        )

    def build_plan(self, parts: Parts) -> Plan:
        """Return the phases of appendix B; a guide of a model that stays as it is has none."""
        if parts.is_frozen:
            return super().build_plan(parts)
        return Plan(
            partial(self._optimizers, parts),
            phases=self._phases(parts),
            phase_of=self._phase_of,
            schedule=self.build_schedule(),
            rates={"network": lambda step: AFTER_WARM_UP if 0 < self.warm_up <= step else 1.0},
            milestones=self._milestones(parts),
            steps_use_all_parameters=False,
        )

    def _phases(self, parts: Parts) -> dict[str, Phase]:
        largest = self.max_operator_learning_rate * self.prior_noise_scale**2
        tried = Trial("operators", ("prior",), largest=largest) if self.try_operators else None
        networks = ["network", "anchors"] if self.learns_anchors else ["network"]
        return {
            "warm-up": Phase(
                ["network"],
                LikelihoodLoss(),
                model=parts.model.reconstruct,
                guide=WarmUpGuide(parts.model),
            ),
            "network": Phase(networks, self.build_loss(prior=self.prior_weight)),
            "operators": Phase(
                ["operators"],
                self.build_loss(likelihood=self.reconstruction_weight),
                trial=tried,
            ),
            "all": Phase([*networks, "operators"], trial=tried),
        }

    def _phase_of(self, step: int) -> str:
        if step < self.warm_up:
            return "warm-up"
        if not self.network_steps:
            return "all"
        turn = (step - self.warm_up) % (self.network_steps + self.operator_steps)
        return "network" if turn < self.network_steps else "operators"

    def _optimizers(self, parts: Parts) -> dict[str, Optimizer]:
        model, guide = parts.model, parts.guide
        networks = [*model.encoder.parameters(), *model.decoder.parameters()]
        if isinstance(guide, nn.Module):
            shared = {id(parameter) for parameter in model.parameters()}
            networks += [p for p in guide.parameters() if id(p) not in shared]
        zeta_4 = self.prior_noise_scale**-2
        optimizers: dict[str, Optimizer] = {
            "network": Adam(networks, lr=self.learning_rate, betas=BETAS, fused=True),
            "operators": SGD(
                [model.operators.psi],
                lr=self.operator_learning_rate / zeta_4,
                weight_decay=ETA * zeta_4,
            ),
        }
        if self.learns_anchors:
            optimizers["anchors"] = SGD([model.anchors], lr=self.anchor_learning_rate / zeta_4)
        return optimizers

    def _milestones(self, parts: Parts) -> dict[int, Callable[[], None]]:
        steps = [0] if self.linear_start or self.even_codes else []
        steps += [self.warm_up] if self.candidates or not self.latent_scale else []
        begin: dict[int, Callable[[], None]]
        begin = {step: partial(self._begin, parts, step) for step in steps}
        return begin | ({self.fit_at: partial(fit_prior, parts)} if self.fit_at else {})

    @torch.no_grad()
    def _begin(self, parts: Parts, step: int) -> None:
        """Set what depends on the data: networks at first, operators after the warm-up."""
        model = parts.model
        x, *anchored = first_points(parts, MEASURED)
        if step == 0 and self.linear_start:
            linear_start(model, x)
        if step == 0 and self.even_codes:
            even_codes(model, x)
        if step < self.warm_up:
            return
        if not self.latent_scale:
            model.operators.scale.fill_(model.encoder(x).abs().mean())
        if self.candidates:
            model.operators.psi.copy_(self._first_operators(model, x, anchored))

    def _first_operators(self, model: Any, x: Tensor, anchored: list[Tensor]) -> Tensor:
        """Return operators that lead from anchors to codes."""
        starts, ends = pairs_to_join(model, x, *anchored)
        with torch.enable_grad():
            return fit_operators(
                starts.flatten(0, 1),
                ends.flatten(0, 1),
                self.num_operators,
                self.zeta_p,
                candidates=self.candidates,
            )


def linear_start(model: Any, x: Tensor) -> None:
    """Begin with linear maps to the principal components of `x`, `batch x_dim`, and back.

    The networks of the model are dense.
    """
    components = torch.linalg.svd(x, full_matrices=False).Vh[: model.operators.z_dim]
    model.encoder.start_linear(components)
    model.decoder.start_linear(components.T)


def even_codes(model: Any, x: Tensor) -> None:
    """Change the encoder's last layer such that codes of `x` have an even spread about their mean.

    Half the usual unit variance: entries of points on a circle are then within [-1, 1]. Paths go
    about zero, and nothing says that data do so about their mean: zero stays where it is.
    """
    last = [m for m in model.encoder.modules() if isinstance(m, nn.Linear)][-1]
    values, vectors = torch.linalg.eigh(torch.cov(model.encoder(x).T, correction=0))
    root = (vectors / (2 * values).sqrt()) @ vectors.T
    last.weight.copy_(root @ last.weight)
    last.bias.copy_(root @ last.bias)
