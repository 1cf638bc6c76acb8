r"""The width and the rate of the prior, fitted by likelihood.

.. math:: \gamma_p^2 = \frac1{N d} \sum_i \mathbb{E} |z_i - T(c_i) f(a_{k_i})|^2, \qquad
          \rho_p^{-1} = \frac1{N M} \sum_i \mathbb{E} |c_i|_1

with the expectations under the posterior of the program with explicit anchors, coefficients and
codes: the steps of expectation maximisation, by weighted draws. With the maximum in the place of
the integral the width would come out too small, as each path bends to reach its code.
"""

from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_latents.guides.vaells_evidence import EvidenceGuide
from pyro_latents.models.vaells import VAELLS
from pyro_latents.programs import local_parameters, paired_traces, random_sites
from pyro_latents.stories.story import Parts

POINTS, PARTICLES, ROUNDS = 200, 50, 12
# The narrowest width, and the lowest rate: of codes that lie on paths exactly, and of paths that
# lead nowhere.
NARROWEST, LOWEST = 1e-4, 1e-4


@torch.no_grad()
def fit_prior(parts: Parts) -> None:
    """Set the model's width and rate to those that training points are most likely under."""
    model = parts.model
    kind = model.operators.psi.dtype
    batch = [
        a.to(kind) if a.is_floating_point() else a for a in parts.first_batch("train", size=POINTS)
    ]
    with local_parameters(model):
        _set(model, *_of_shortest_paths(model, *batch))
        for _ in range(ROUNDS):
            _set(model, *_expected(model, *batch))


def _expected(model: VAELLS, *batch: Tensor) -> tuple[Tensor, Tensor]:
    """The width and the rate of paths drawn from the posterior."""
    plate = pyro.plate("_particles", PARTICLES, dim=-2)
    traces = paired_traces(plate(model), plate(EvidenceGuide(model)), *batch)
    joint, proposal = (sum(s["log_prob"] for _, s in random_sites(trace)) for trace in traces)
    weights = (joint - proposal).softmax(0)
    nodes: Any = traces[0].nodes
    z, c = nodes["z"], nodes["c"]
    distance = (z["value"] - z["fn"].base_dist.loc).square().mean(-1)
    length = c["value"].abs().mean(-1)
    return (weights * distance).sum(0).mean().sqrt(), 1 / (weights * length).sum(0).mean()


def _of_shortest_paths(
    model: VAELLS, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the fit begins with: distances and lengths of the best paths to the codes."""
    codes = model.encoder(x) / model.operators.scale
    starts = model.starts(y, anchors).expand(len(x), -1, -1)
    ends = codes[:, None].expand_as(starts)
    c, _ = model.operators.infer(starts, ends, model.inference_weight)
    distance = (ends - model.operators(c, starts)).square().mean(-1)
    nearest = distance.argmin(1, keepdim=True)
    length = c.abs().mean(-1).gather(1, nearest)
    return distance.gather(1, nearest).mean().sqrt(), 1 / length.mean()


def _set(model: VAELLS, width: Tensor, rate: Tensor) -> None:
    model.noise_scale.copy_(width.clamp_min(NARROWEST))
    model.coefficient_rate.copy_(rate.clamp_min(LOWEST))
