r"""The width and the rate of the prior, fitted by likelihood.

.. math:: \gamma_p^2 = \frac1{N d} \sum_i \mathbb{E} |z_i - T(c_i) f(a_{k_i})|^2, \qquad
          \rho_p^{-1} = \frac1{N M} \sum_i \mathbb{E} |c_i|_1

with the expectations under the posterior of the program with explicit anchors, coefficients and
codes: the steps of expectation maximisation, by weighted draws. With the maximum in the place of
the integral the width would come out too small, as each path bends to reach its code.
"""

from typing import Any

import torch
from torch import Tensor

from pyro_latents.evaluation.evidence import weighted
from pyro_latents.guides.vaells_evidence import EvidenceGuide
from pyro_latents.models.vaells import VAELLS, select
from pyro_latents.programs import local_parameters
from pyro_latents.stories.story import Parts

POINTS, PARTICLES, ROUNDS = 200, 50, 12
# The narrowest width, of codes that lie on paths exactly; the lowest rate, of paths that lead
# nowhere, and the highest, of paths that none of the codes needs.
NARROWEST, LOWEST, HIGHEST = 1e-4, 1e-4, 1e4


@torch.no_grad()
def fit_prior(parts: Parts) -> None:
    """Set the model's width and rate to those that training points are most likely under."""
    model, batch = parts.model, first_points(parts, POINTS)
    with local_parameters(model):
        _set(model, *_of_shortest_paths(model, *batch))
        for _ in range(ROUNDS):
            _set(model, *_expected(model, *batch))


def first_points(parts: Parts, size: int) -> list[Any]:
    """Return a batch of the first training points, in the precision of the operators."""
    kind = parts.model.operators.psi.dtype
    batch = parts.first_batch("train", size=size)
    return [a.to(kind) if a.is_floating_point() else a for a in batch]


def pairs_to_join(
    model: VAELLS, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None
) -> list[Tensor]:
    """Return each start and the end of paths to the codes of x: `batch num_anchors z_dim`."""
    return list(torch.broadcast_tensors(model.starts(y, anchors), model.code(x)[:, None]))


def _expected(model: VAELLS, *batch: Tensor) -> tuple[Tensor, Tensor]:
    """The width and the rate of paths drawn from the posterior."""
    log_weights, drawn = weighted(model, EvidenceGuide(model), list(batch), -1, PARTICLES)
    weights = log_weights.softmax(0)
    nodes: Any = drawn.nodes
    k, c, z = (nodes[name]["value"] for name in ("k", "c", "z"))
    distance = (z - model.operators(c, select(model.starts(*batch[1:]), k))).square().mean(-1)
    length = c.abs().mean(-1)
    return (weights * distance).sum(0).mean().sqrt(), 1 / (weights * length).sum(0).mean()


def _of_shortest_paths(model: VAELLS, *batch: Tensor) -> tuple[Tensor, Tensor]:
    """What the fit begins with: distances and lengths of the best paths to the codes."""
    starts, ends = pairs_to_join(model, *batch)
    c, _ = model.operators.infer(starts, ends, model.inference_weight)
    distance = (ends - model.operators(c, starts)).square().mean(-1)
    nearest = distance.argmin(1, keepdim=True)
    length = c.abs().mean(-1).gather(1, nearest)
    return distance.gather(1, nearest).mean().sqrt(), 1 / length.mean()


def _set(model: VAELLS, width: Tensor, rate: Tensor) -> None:
    model.noise_scale.copy_(width.clamp_min(NARROWEST))
    model.coefficient_rate.copy_(rate.clamp(LOWEST, HIGHEST))
