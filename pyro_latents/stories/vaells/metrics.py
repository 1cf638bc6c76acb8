"""What VAELLS is measured by."""

import math

import torch
from torch import Tensor

from pyro_latents.data.batches import Batches, BatchMaker, mixed_seed
from pyro_latents.data.examples import Examples
from pyro_latents.losses import TraceMax_ELBO
from pyro_latents.models.vaells import VAELLS
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.progress import watched
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.paths import (
    distance_from_orbit,
    distance_from_path,
    path_length_correlation,
    rank_correlation,
    spiral_length,
)

# The paper's, and enough: the guide is narrow, and each particle infers paths from all anchors.
MOST_PARTICLES = 100
ROWS = 100


def measure(parts: Parts, batches: BatchMaker, particles: int) -> dict[str, float]:
    """Return the metrics of a trained model by name.

    The log-likelihood is the importance-weighted one of the paper's table, with the densities of
    code given anchor and observation by their maximum: an approximation, not a bound.

    Args:
        parts: The trained parts.
        batches: The maker of the batches to measure on.
        particles: Importance samples for each data point, of which the first 100 are drawn.
    """
    model, guide = parts.model, parts.guide
    particles = min(particles, MOST_PARTICLES)
    loss = TraceMax_ELBO(max_plate_nesting=1, num_particles=particles, vectorize_particles=True)
    ratios, errors, codes = [], [], []
    loader = Batches(batches, ROWS, seed=parts.seed, shuffle=False)
    with torch.no_grad(), local_parameters(model, guide), evaluation_mode(model, guide):
        for number, batch in enumerate(watched(loader, "log likelihood")):
            torch.manual_seed(mixed_seed(parts.seed, number))
            ratios.append(loss.log_ratio(model, guide, *batch))
            code = model.encoder(batch[0])
            codes.append(code / model.operators.scale)
            mean = model.likelihood(model.decoder(code)).mean
            errors.append((mean - batch[0]).square().flatten(1).mean(1))
        ratio = torch.cat(ratios, 1)
        norms = torch.linalg.matrix_norm(model.operators.psi)
        return {
            "elbo": ratio.mean().item(),
            "log_likelihood": (ratio.logsumexp(0) - math.log(particles)).mean().item(),
            "log_likelihood_particles": particles,
            "mse": torch.cat(errors).mean().item(),
            **{f"operator_norm_{m}": norm.item() for m, norm in enumerate(norms)},
            **_of_manifold(model, parts.story.data, batches.examples, torch.cat(codes)),
        }


def _of_manifold(model: VAELLS, data: str, examples: Examples, codes: Tensor) -> dict[str, float]:
    if data == "swiss-roll":
        return _of_roll(model, codes, spiral_length(examples.extras["position"]))
    if data == "circles" and examples.y is not None:
        on_paths = of_rotation(model.operators.psi, codes, examples.y)
        return of_circles(codes, examples.y) | on_paths
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


def of_rotation(operators: Tensor, codes: Tensor, y: Tensor) -> dict[str, float]:
    """How well codes of two circles lie on paths of one learned operator, the best of them.

    Nothing is returned where no operator rotates.

    Args:
        operators: The operators, of shape `num_operators 2 2`.
        codes: The codes, of shape `batch 2`.
        y: The circle of each, 0 or 1.
    """
    distances = [
        [100 * distance_from_path(psi, codes[y == label]) for label in (0, 1)] for psi in operators
    ]
    best = min(range(len(distances)), key=lambda m: max(distances[m]))
    if not math.isfinite(max(distances[best])):
        return {}
    return {
        "rotation": best,
        **{f"circle_{label}_from_path": distances[best][label] for label in (0, 1)},
    }


def _of_roll(model: VAELLS, codes: Tensor, position: Tensor) -> dict[str, float]:
    """Rank correlations of distances along the roll with those of paths and of straight lines."""
    anchors = model.encoder(model.anchors[0]) / model.operators.scale
    # An anchor's own position is that of the nearest data point.
    nearest = torch.cdist(anchors, codes).argmin(1)
    metrics = {}
    for k, anchor in enumerate(anchors):
        distance = (position - position[nearest[k]]).abs()
        metrics[f"path_correlation_{k}"] = path_length_correlation(
            model.operators, anchor, codes, distance, model.inference_weight
        )
        metrics[f"euclidean_correlation_{k}"] = rank_correlation(
            (codes - anchor).norm(dim=1), distance
        )
    return metrics


def _separable(codes: Tensor, y: Tensor) -> float:
    """The accuracy of the best ellipse around zero that has one class inside, by least squares."""
    x, z = codes.double().T
    design = torch.stack([x * x, 2 * x * z, z * z, torch.ones_like(x)], 1)
    target = 2 * y.double()[:, None] - 1
    solution = torch.linalg.lstsq(design, target).solution
    return ((design @ solution)[:, 0] > 0).eq(y == 1).double().mean().item()
