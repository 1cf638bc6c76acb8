"""The training of VAELLS: the phases of appendix B of Connor et al. (2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyro_latents.data.batches import Batches
from pyro_latents.losses import LikelihoodLoss, TraceMax_ELBO
from pyro_latents.transport import fit_operators

if TYPE_CHECKING:
    from pyro_latents.recipes.recipe import Recipe
    from pyro_latents.recipes.vaells import VAELLSSettings
    from pyro_latents.training.phases import Phase, PhasedModule

# Of the data that codes are measured on, to choose their scale and the first operators.
MEASURED = 1_000


def phased_module(settings: VAELLSSettings, recipe: Recipe) -> PhasedModule:
    """Return the module that goes through the phases of appendix B."""
    # Lightning takes seconds to import, and only training needs it.
    from pyro_latents.training.phases import PhasedModule

    phases = _phases(settings)

    def phase_of(step: int) -> Phase:
        if step < settings.warm_up:
            return phases["warm-up"]
        if not settings.network_steps:
            return phases["all"]
        turn = (step - settings.warm_up) % (settings.network_steps + settings.operator_steps)
        return phases["network" if turn < settings.network_steps else "operators"]

    def rate_of(step: int) -> Mapping[str, float]:
        # Adam's own state is left alone; only the size of its steps changes.
        return {"network": settings.after_warm_up if 0 < settings.warm_up <= step else 1.0}

    milestones: dict[int, Callable[[], None]] = {}
    if settings.linear_start or settings.even_codes:
        milestones[0] = lambda: _begin_networks(settings, recipe)
    milestones[settings.warm_up] = _in_turn(
        milestones.get(settings.warm_up), lambda: _begin_operators(settings, recipe)
    )
    return PhasedModule(
        recipe.model,
        recipe.guide,
        recipe.loss,
        phase_of=phase_of,
        build_optimizers=lambda module: _optimizers(settings, recipe),
        rate_of=rate_of,
        milestones=milestones,
        seed=recipe.seed,
    )


def objective(
    settings: VAELLSSettings, *, reconstruction: float = 1.0, prior: float = 1.0
) -> TraceMax_ELBO:
    """Return the objective, with the weights as powers of the program's own densities."""
    variance = settings.noise_scale**2
    return TraceMax_ELBO(
        max_plate_nesting=1,
        model_weights={
            "x": reconstruction * settings.zeta_1 * settings.x_scale**2,
            "z": prior * settings.zeta_4 * variance,
            "c": prior * settings.zeta_5 / settings.zeta_3,
        },
        guide_weights={"z": settings.zeta_2 * variance},
    )


def _phases(settings: VAELLSSettings) -> dict[str, Phase]:
    from pyro_latents.training.phases import Phase, Trial

    tried = None
    if settings.try_operators:
        tried = (
            "operators",
            Trial(
                terms=("prior", "posterior"),
                largest=settings.max_operator_learning_rate,
                smallest=settings.min_operator_learning_rate,
            ),
        )
    networks = ["network"]
    if settings.anchor_learning_rate and not settings.own_anchors:
        networks.append("anchors")
    warm_up = LikelihoodLoss(weights={"x": settings.zeta_1 * settings.x_scale**2})
    return {
        "warm-up": Phase(warm_up, ["network"], prepare=lambda m, g: _set(m, g, warm_up=True)),
        "network": Phase(
            objective(settings, prior=settings.prior_weight),
            networks,
            prepare=lambda m, g: _set(m, g, warm_up=False),
        ),
        "operators": Phase(
            objective(settings, reconstruction=settings.reconstruction_weight),
            ["operators"],
            tried,
            lambda m, g: _set(m, g, warm_up=False),
        ),
        "all": Phase(
            objective(settings),
            [*networks, "operators"],
            tried,
            lambda m, g: _set(m, g, warm_up=False),
        ),
    }


def _optimizers(settings: VAELLSSettings, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    model, guide = recipe.model, recipe.guide
    networks = [*model.encoder.parameters(), *model.decoder.parameters()]
    shared = {id(p) for p in model.parameters()}
    networks += [p for p in guide.parameters() if id(p) not in shared]
    optimizers: dict[str, torch.optim.Optimizer] = {
        # The betas of the authors' runs.
        "network": torch.optim.Adam(networks, lr=settings.learning_rate, betas=(0.5, 0.999)),
        "operators": torch.optim.SGD([model.operators.psi], lr=settings.operator_learning_rate),
    }
    if settings.anchor_learning_rate and not settings.own_anchors:
        optimizers["anchors"] = torch.optim.SGD([model.anchors], lr=settings.anchor_learning_rate)
    return optimizers


def _begin_networks(settings: VAELLSSettings, recipe: Recipe) -> None:
    """Begin with linear networks and even codes, where the settings ask for it."""
    x = _first_batch(settings, recipe)[0]
    if settings.linear_start:
        linear_start(recipe.model, x)
    if settings.even_codes:
        even_codes(recipe.model, x)


def _begin_operators(settings: VAELLSSettings, recipe: Recipe) -> None:
    """Choose the latent scale and the first operators, where the settings ask for it."""
    model = recipe.model
    if not settings.latent_scale:
        codes = model.encoder(_first_batch(settings, recipe)[0])
        model.operators.scale.fill_(codes.abs().mean())
    if not settings.candidates:
        return
    x, *anchored = _first_batch(settings, recipe)
    codes = model.encoder(x) / model.operators.scale
    starts = model.starts(*anchored)
    starts = starts.expand(len(codes), *starts.shape[-2:])
    ends = codes[:, None].expand_as(starts)
    with torch.enable_grad():
        psi = fit_operators(
            starts.flatten(0, 1).detach(),
            ends.flatten(0, 1).detach(),
            settings.num_operators,
            settings.zeta_p,
            candidates=settings.candidates,
        )
    model.operators.psi.copy_(psi)


def _first_batch(settings: VAELLSSettings, recipe: Recipe) -> tuple[Tensor, ...]:
    """The first data points with their classes or anchors, on the model's device."""
    device = recipe.model.operators.psi.device
    first = recipe.splits.train.take(slice(MEASURED)).to(device)
    return Batches(
        settings.build_batches(first, recipe.splits), len(first), seed=0, shuffle=False
    ).batch(0)


def linear_start(model: nn.Module, x: Tensor) -> None:
    """Begin with linear maps to the principal components of `x` and back."""
    z_dim = model.operators.psi.shape[-1]
    components = torch.linalg.svd(x, full_matrices=False).Vh[:z_dim]
    model.encoder.start_linear(components)
    model.decoder.start_linear(components.T)


def even_codes(model: nn.Module, x: Tensor) -> None:
    """Change the encoder's last layer such that codes of `x` have unit second moments."""
    last = [m for m in model.encoder.modules() if isinstance(m, nn.Linear)][-1]
    codes = model.encoder(x)
    values, vectors = torch.linalg.eigh(codes.T @ codes / len(codes))
    # Half the usual unit variance: entries of points on a circle are then within [-1, 1].
    root = (vectors / (2 * values).sqrt()) @ vectors.T
    last.weight.copy_(root @ last.weight)
    last.bias.copy_(root @ last.bias)


def _set(model: nn.Module, guide: nn.Module, *, warm_up: bool) -> None:
    for program in (model, guide):
        # A guide of the user's own need not know of warm-ups.
        if hasattr(program, "warm_up"):
            program.warm_up = warm_up


def _in_turn(*functions: Callable[[], None] | None) -> Callable[[], None]:
    def call() -> None:
        for function in functions:
            if function is not None:
                function()

    return call
