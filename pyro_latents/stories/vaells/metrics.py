"""What VAELLS is measured by, and what its predictive check hides."""

import math
from typing import Any

import pyro
import torch
from pyro.distributions import Categorical, Delta, Normal
from scipy.stats import spearmanr
from torch import Tensor

from pyro_latents.data.batches import BatchMaker
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import Metrics, of_evidence
from pyro_latents.models.vaells import VAELLS, coefficient_prior
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.likelihood import estimates_of_connor, evidence_of_programs
from pyro_latents.transport import TransportOperators

# Random paths of a check for each data point. A tenth of them, with ten anchors, is kept.
CANDIDATES = 500
# Of ellipses and paths that distances are taken to, and the codes that are tried as their starts.
ORBIT_POINTS, PATH_POINTS, STARTS = 720, 360, 60


def measure(
    parts: Parts, batches: BatchMaker, sampling: ImportanceSampling | None = None
) -> Metrics:
    """Return the metrics of trained parts by name; without sampling, those that need no draws.

    The error ``mse`` is that of decoded encodings. ``elbo`` is the objective, whose densities of
    codes are maxima: an approximation, and no bound. With sampling there are, in nats an image
    (`pyro_latents.stories.vaells.likelihood` says what they are):

    * ``log_likelihood``, the evidence of the program, with the number of particles and points, the
      share of points whose k-hat is too high and the effective sample size; the evidence of a
      normal for each class and of one normal on the same codes,
      ``normal_per_class_log_likelihood`` and ``normal_log_likelihood``;
    * ``connor_log_likelihood``, the estimate of the paper's table, and ``sampled_mse``, the error
      beside it.
    """
    model = parts.model
    with torch.no_grad(), evaluation_mode(model):
        codes, errors = _encoded(parts, batches)
        norms = torch.linalg.matrix_norm(model.operators.psi)
        found = {
            "mse": errors.mean().item(),
            **{f"operator_norm_{m}": norm.item() for m, norm in enumerate(norms)},
            "prior_noise_scale": model.noise_scale.item(),
            "prior_rate": model.coefficient_rate.item(),
            **_of_manifold(model, parts.story.data, batches.examples, codes),
        }
    return found if sampling is None else _likelihoods(parts, batches, sampling) | found


def _likelihoods(parts: Parts, batches: BatchMaker, sampling: ImportanceSampling) -> Metrics:
    evidence = evidence_of_programs(parts, batches, sampling)
    paths = evidence.pop("paths")
    estimate, error = estimates_of_connor(parts, batches, points=sampling.points)
    found = of_evidence(paths, sampling.particles)
    # Of the proposal, which is not the guide.
    del found["gap"]
    return {
        "elbo": _objective(parts, batches, sampling.points),
        **found,
        **{f"{name}_log_likelihood": of.log_evidence for name, of in evidence.items()},
        "connor_log_likelihood": estimate,
        "sampled_mse": error,
    }


def _objective(parts: Parts, batches: BatchMaker, points: int) -> float:
    """The objective of the first points, with its sign changed."""
    loss: Any = parts.loss
    with torch.no_grad(), local_parameters(parts.model, parts.guide):
        ratios = [
            loss.log_ratio(parts.model, parts.guide, *batch)
            for batch in seeded_batches(batches, points=points, seed=parts.seed)
        ]
    return torch.cat(ratios, 1).mean().item()


def _encoded(parts: Parts, batches: BatchMaker) -> tuple[Tensor, Tensor]:
    """Codes in the units of the operators, and the error of decoding each."""
    model, codes, errors = parts.model, [], []
    for x, *_ in seeded_batches(batches, seed=parts.seed):
        code = model.encoder(x)
        mean = model.likelihood(model.decoder(code)).mean
        codes.append(code / model.operators.scale)
        errors.append((mean - x).square().flatten(1).mean(1))
    return torch.cat(codes), torch.cat(errors)


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
        "circle_0_from_orbit": 100 * distance_from_orbit(codes[y == 0].cpu()),
        "circle_1_from_orbit": 100 * distance_from_orbit(codes[y == 1].cpu()),
        "circles_separable": 100 * _separable(codes, y),
    }


def of_rotation(operators: Tensor, codes: Tensor, y: Tensor) -> dict[str, float]:
    """How well codes of two circles lie on paths of one learned operator, the best of them.

    Of operators `num_operators 2 2` that do not rotate nothing is returned.
    """
    distances = [
        [100 * distance_from_path(psi, codes[y == label]) for label in (0, 1)] for psi in operators
    ]
    best = min(range(len(distances)), key=lambda m: max(distances[m]))
    inner, outer = distances[best]
    if not math.isfinite(max(inner, outer)):
        return {}
    return {"rotation": best, "circle_0_from_path": inner, "circle_1_from_path": outer}


def _of_roll(model: VAELLS, codes: Tensor, position: Tensor) -> dict[str, float]:
    """Rank correlations of distances along the roll with those of paths and of straight lines."""
    anchors = model.starts()
    # An anchor's own position is that of the nearest data point.
    nearest = torch.cdist(anchors, codes).argmin(1)
    metrics = {}
    for k, anchor in enumerate(anchors):
        distance = (position - position[nearest[k]]).abs()
        metrics[f"path_correlation_{k}"] = path_length_correlation(
            model.operators, anchor, codes, distance, model.inference_weight
        )
        straight = (codes - anchor).norm(dim=1)
        metrics[f"euclidean_correlation_{k}"] = rank_correlation(straight, distance)
    return metrics


def _separable(codes: Tensor, y: Tensor) -> float:
    """The accuracy of the best ellipse around zero that has one class inside, by least squares."""
    x, z = codes.double().T
    design = torch.stack([x * x, 2 * x * z, z * z, torch.ones_like(x)], 1)
    target = 2 * y.double()[:, None] - 1
    solution = torch.linalg.lstsq(design, target).solution
    return ((design @ solution)[:, 0] > 0).eq(y == 1).double().mean().item()


def path_length_correlation(
    operators: TransportOperators, start: Tensor, codes: Tensor, position: Tensor, l1_weight: float
) -> float:
    """Spearman's correlation of the lengths of inferred paths with distances along a curve.

    Args:
        operators: The transport operators.
        start: The code that all paths start from, of shape `z_dim`.
        codes: Where they end, of shape `batch z_dim`.
        position: The distance of each code's data point from that of the start, along the curve.
        l1_weight: As of `operators.infer`.
    """
    c, _ = operators.infer(start.expand_as(codes), codes, l1_weight)
    return rank_correlation(c.abs().sum(-1), position)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two vectors; 0 where one of them is constant."""
    if bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return 0.0
    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)


def spiral_length(angle: Tensor) -> Tensor:
    """The length of Archimedes' spiral `r = angle` from its centre to an angle."""
    return 0.5 * (angle * (1 + angle.square()).sqrt() + angle.asinh())


def distance_from_orbit(codes: Tensor) -> float:
    """The largest distance of codes from the ellipse around zero that fits them best.

    The codes `batch 2` are of one closed curve. An orbit of a rotation-like operator in two
    dimensions is such an ellipse, `z' S z = 1`; the fit is by least squares in S. The distance is
    divided by the mean one of the codes from zero.
    """
    x, y = codes.double().T
    design = torch.stack([x * x, 2 * x * y, y * y], 1)
    a, b, c = torch.linalg.lstsq(design, torch.ones_like(x)[:, None]).solution[:, 0]
    angle = 2 * torch.pi * torch.arange(ORBIT_POINTS, dtype=x.dtype) / ORBIT_POINTS
    u = torch.stack([angle.cos(), angle.sin()], 1)
    radius = (a * u[:, 0] ** 2 + 2 * b * u[:, 0] * u[:, 1] + c * u[:, 1] ** 2).rsqrt()
    distance = torch.cdist(codes.double(), radius[:, None] * u).amin(1)
    return float(distance.amax() / codes.double().norm(dim=1).mean())


def distance_from_path(psi: Tensor, codes: Tensor) -> float:
    """The largest distance of codes from one path of an operator, `expm(c psi) z`.

    The codes `batch 2` are of one closed curve. The path goes half a turn of the operator's
    rotation to both sides of its start, which is the code whose path fits best. The distance is
    divided by the mean one of the codes from zero; it is infinite for an operator that does not
    rotate.
    """
    psi, codes = psi.detach().double().cpu(), codes.detach().double().cpu()
    speed = torch.linalg.eigvals(psi).imag.abs().amax()
    if speed == 0:
        return math.inf
    c = torch.pi / speed * torch.linspace(-1, 1, PATH_POINTS, dtype=psi.dtype)
    moves = torch.linalg.matrix_exp(c[:, None, None] * psi)
    tried = codes[torch.linspace(0, len(codes) - 1, min(STARTS, len(codes))).long()]
    nearest = [torch.cdist(codes, moves @ start).amin(1).amax() for start in tried]
    return float(torch.stack(nearest).amin() / codes.norm(dim=1).mean())


class EndsOfPaths:
    r"""A guide that sees where the path to an observation starts, and nothing else of it.

    A path of the model starts at an anchor and ends at the code of the observation. What is seen
    is what the model is given beside the observation (its class, or anchors of its own), and
    which of the anchors is the nearest one to its code:

    .. math:: z \sim p(z \mid k^*(z) = k^*(f(x))), \qquad
              k^*(z) = \arg\min_k |z - f(a_k)|

    with `p(z)` the program's: k uniform, c from its prior. What is hidden is how far and which
    way the path went. Random paths that end nearest to another anchor are thrown away: what is
    left are draws of the condition, and a model that is right passes, up to the error of `f`.
    Were paths simply begun at the nearest anchor, it would not: a path may well end nearest to
    another anchor than it began at. Where no random path ends nearest to that anchor, the data
    point has those of all.
    """

    def __init__(self, model: VAELLS) -> None:
        self.model = model

    def __call__(
        self, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None
    ) -> Tensor:
        """Draw codes; of x, only the nearest anchor is used."""
        starts = self.model.starts(y, anchors)
        starts = starts.expand(len(x), *starts.shape[-2:])
        rows = torch.arange(len(x), device=x.device)
        z = self._candidates(starts, rows)
        seen = _nearest(self.model.code(x), starts)
        kept = _nearest(z, starts) == seen
        kept |= ~kept.any(0)
        with pyro.plate("data", len(x), dim=-1):
            choice = Categorical(kept.T.to(z.dtype))
            chosen = pyro.sample("candidate", choice, infer={"is_auxiliary": True})
            return pyro.sample("z", Delta(z[chosen, rows], event_dim=1))

    def _candidates(self, starts: Tensor, rows: Tensor) -> Tensor:
        """Ends of random paths, of shape `candidates batch z_dim`."""
        model, operators = self.model, self.model.operators
        k = torch.randint(starts.shape[-2], (CANDIDATES, len(rows)), device=rows.device)
        start = starts[rows, k]
        c = coefficient_prior(start, operators.num_operators, model.coefficient_rate).sample()
        return Normal(operators(c, start), model.noise_scale).sample()


def _nearest(z: Tensor, starts: Tensor) -> Tensor:
    """The nearest start to each code: `*leading batch z_dim` to `*leading batch`."""
    return (z.unsqueeze(-2) - starts).square().sum(-1).argmin(-1)
