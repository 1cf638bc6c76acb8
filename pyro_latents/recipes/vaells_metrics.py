"""What VAELLS is measured by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_latents.data.batches import Batches, BatchMaker, mixed_seed
from pyro_latents.evaluation.paths import (
    distance_from_orbit,
    distance_from_path,
    path_length_correlation,
    rank_correlation,
    spiral_length,
)
from pyro_latents.losses import TraceMax_ELBO
from pyro_latents.parameters import evaluation_mode, local_parameters

if TYPE_CHECKING:
    from pyro_latents.recipes.recipe import Recipe

# The paper's, and enough: the guide is narrow, and each particle infers paths from all anchors.
MOST_PARTICLES = 100
ROWS = 100


def measure(recipe: Recipe, batches: BatchMaker, particles: int) -> dict[str, float]:
    """Return the figures of a trained model by name.

    The log-likelihood is the importance-weighted one of the paper's table, with the densities of
    code given anchor and observation by their maximum: an approximation, not a bound.
    """
    model, guide = recipe.model, recipe.guide
    particles = min(particles, MOST_PARTICLES)
    loss = TraceMax_ELBO(max_plate_nesting=1, num_particles=particles, vectorize_particles=True)
    ratios, errors, codes = [], [], []
    loader = Batches(batches, ROWS, seed=recipe.seed, shuffle=False)
    programs = model, guide
    with torch.no_grad(), local_parameters(*programs), evaluation_mode(*programs):
        for number, batch in enumerate(tqdm(loader, desc="log likelihood")):
            torch.manual_seed(mixed_seed(recipe.seed, number))
            ratios.append(loss.log_ratio(model, guide, *batch))
            code = model.encoder(batch[0])
            codes.append(code / model.operators.scale)
            mean = model.likelihood(model.decoder(code)).mean
            errors.append((mean - batch[0]).square().flatten(1).mean(1))
        ratio = torch.cat(ratios, 1)
        figures = {
            "elbo": ratio.mean().item(),
            "log_likelihood": (ratio.logsumexp(0) - math.log(particles)).mean().item(),
            "log_likelihood_particles": particles,
            "mse": torch.cat(errors).mean().item(),
            **{
                f"operator_norm_{m}": norm.item()
                for m, norm in enumerate(torch.linalg.matrix_norm(model.operators.psi))
            },
        }
        figures |= _of_manifold(recipe, batches, torch.cat(codes))
    return figures


def _of_manifold(recipe: Recipe, batches: BatchMaker, codes: Tensor) -> dict[str, float]:
    name, examples = recipe.settings.data, batches.examples
    if name == "swiss-roll":
        return _of_roll(recipe, codes, spiral_length(examples.extras["position"]))
    if name == "circles" and examples.y is not None:
        return of_circles(codes, examples.y) | of_rotation(recipe, codes, examples.y)
    return {}


def of_circles(codes: Tensor, y: Tensor) -> dict[str, float]:
    """How well codes of two circles lie on ellipses around zero, apart from each other."""
    return {
        **{
            f"circle_{label}_from_orbit": 100 * distance_from_orbit(codes[y == label].cpu())
            for label in (0, 1)
        },
        "circles_separable": 100 * _separable(codes, y),
    }


def of_rotation(recipe: Recipe, codes: Tensor, y: Tensor) -> dict[str, float]:
    """How well codes of two circles lie on paths of one learned operator, the best of them.

    Nothing is returned where no operator rotates.
    """
    distances = [
        [100 * distance_from_path(psi, codes[y == label]) for label in (0, 1)]
        for psi in recipe.model.operators.psi
    ]
    best = min(range(len(distances)), key=lambda m: max(distances[m]))
    if not math.isfinite(max(distances[best])):
        return {}
    return {
        "rotation": best,
        **{f"circle_{label}_from_path": distances[best][label] for label in (0, 1)},
    }


def _of_roll(recipe: Recipe, codes: Tensor, position: Tensor) -> dict[str, float]:
    """Rank correlations of distances along the roll with those of paths and of straight lines."""
    model = recipe.model
    anchors = model.encoder(model.anchors[0]) / model.operators.scale
    # An anchor's own position is that of the nearest data point.
    nearest = torch.cdist(anchors, codes).argmin(1)
    figures = {}
    for k, anchor in enumerate(anchors):
        distance = (position - position[nearest[k]]).abs()
        figures[f"path_correlation_{k}"] = path_length_correlation(
            model.operators, anchor, codes, distance, model.inference_weight
        )
        figures[f"euclidean_correlation_{k}"] = rank_correlation(
            (codes - anchor).norm(dim=1), distance
        )
    return figures


def _separable(codes: Tensor, y: Tensor) -> float:
    """The accuracy of the best ellipse around zero that has one class inside, by least squares."""
    x, z = codes.double().T
    design = torch.stack([x * x, 2 * x * z, z * z, torch.ones_like(x)], 1)
    target = 2 * y.double()[:, None] - 1
    solution = torch.linalg.lstsq(design, target).solution
    return ((design @ solution)[:, 0] > 0).eq(y == 1).double().mean().item()
