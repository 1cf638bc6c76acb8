r"""Two columns of log-likelihood: the estimate of Connor et al., and the evidence of programs.

**The estimate of Connor et al.** (`estimate_of_connor`) is what the table of figure 6 was computed
by. For each image, with d entries of the code, M operators and the latent scale s:

1. :math:`c \sim` Laplace(0, 1), :math:`z = T(c) f(x)`, without noise;
2. :math:`\log p(x|z)` is a normal of unit variance around g(z);
3. :math:`\log q = -\tfrac{s^2}{2} |z - T(c^*) f(x)|^2 - |c^*|_1 - \tfrac d2 \log 2\pi - M \log 2`;
4. :math:`\log p(z)` is the same from the closest anchor of the image's class by its inference
   objective, with :math:`.01 |c^*_k|_1` and :math:`M \log 200`;
5. :math:`\log \tfrac1K \sum e^{\log p(x|z) + \log p(z) - \log q}`, and the error is that of the
   sampled z.

It is no likelihood and no bound: q is not the density of what is drawn, and -M log 100 alone makes
most of the table's fall with M. It is given the label.

**The evidence** is :math:`\log p(x)` of a program, by importance sampling with its k-hat and
effective sample size. Two programs without paths stand beside VAELLS (`NormalCodes`), with its
decoder and its codes of the training data: a normal for each class, and one for all.
"""

import math
from collections.abc import Callable

import pyro
import torch
from pyro.distributions import MultivariateNormal
from pyro.nn import PyroModule
from torch import Tensor

from pyro_latents.data.batches import BatchMaker
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.evaluation.evidence import (
    Evidence,
    ImportanceSampling,
    log_evidence_of_batches,
)
from pyro_latents.guides.vaells import TransportGuide
from pyro_latents.guides.vaells_evidence import (
    EvidenceGuide,
    Seen,
    likelihood_of_code,
    normal_code,
)
from pyro_latents.models.vaells import VAELLS, coefficient_prior, select
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.stories.story import Parts

# Of the estimate: the rates of the guide and of the prior, and its particles and images.
RATE, PRIOR_RATE = 1.0, 0.01
PARTICLES, IMAGES = 100, 500
# Added to the variances of codes, in units of their mean: a class may have few of them.
RIDGE = 1e-3


class NormalCodes(PyroModule):
    """`z ~ N(m_y, C_y), x ~ p(x | z)`: the decoder of a model, and normals in the place of paths.

    Args:
        model: The model; it is kept unregistered.
        codes: Codes of training data, of shape `count z_dim`.
        y: Their classes, None for a single normal.
    """

    def __init__(self, model: VAELLS, codes: Tensor, y: Tensor | None) -> None:
        super().__init__()
        self._model = (model,)
        labels = torch.zeros(len(codes), dtype=torch.long) if y is None else y.cpu()
        parts = [codes[labels == label] for label in range(int(labels.max()) + 1)]
        self.given_class = y is not None
        self.register_buffer("loc", torch.stack([part.mean(0) for part in parts]))
        self.register_buffer("covariance", torch.stack([_covariance(part) for part in parts]))

    def forward(self, x: Tensor, y: Tensor | None = None, *others: Tensor) -> Tensor:
        """Run the program; anchors are not looked at."""
        model = self._model[0]
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", MultivariateNormal(*self.normals(x, y)))
            return pyro.sample("x", model.observation(z), obs=x)

    def normals(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """The mean and the covariance of the normal of each data point."""
        rows = y if self.given_class else torch.zeros(len(x), dtype=torch.long, device=x.device)
        return self.loc[rows], self.covariance[rows]

    def guide(self, x: Tensor, y: Tensor | None = None, *others: Tensor) -> Tensor:
        """q(z | x): the posterior under a linearised decoder, with heavier tails."""
        loc, covariance = self.normals(x, y)
        prior = Seen(loc.double(), torch.linalg.inv(covariance.double()))
        seen = likelihood_of_code(self._model[0], x)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", normal_code(seen, prior, loc.dtype))


def evidence_of_programs(
    parts: Parts, batches: BatchMaker, sampling: ImportanceSampling
) -> dict[str, Evidence]:
    """Estimate the evidence of VAELLS and of normals on the same codes, by name.

    The names are ``paths``, ``normal`` and, of data with classes, ``normal_per_class``.
    """
    model = parts.model
    codes, y = codes_of_training(parts)
    programs: dict[str, tuple[Callable, Callable]] = {"paths": (model, EvidenceGuide(model))}
    for name, labels in {"normal": None, "normal_per_class": y}.items():
        if name == "normal" or labels is not None:
            normal = NormalCodes(model, codes, labels)
            programs[name] = (normal, normal.guide)
    with evaluation_mode(model):
        return {
            name: log_evidence_of_batches(
                *pair,
                batches,
                num_particles=sampling.particles,
                points=sampling.points,
                seed=parts.seed,
            )
            for name, pair in programs.items()
        }


@torch.no_grad()
def codes_of_training(parts: Parts) -> tuple[Tensor, Tensor | None]:
    """Return codes of the training data, in the units of the operators, and their classes."""
    model, codes, classes = parts.model, [], []
    with evaluation_mode(model):
        for x, *given in seeded_batches(parts.batches("train"), seed=parts.seed):
            codes.append(model.code(x))
            classes += given[:1]
    return torch.cat(codes), torch.cat(classes) if classes else None


@torch.no_grad()
def estimates_of_connor(
    parts: Parts, batches: BatchMaker, *, points: int
) -> tuple[Tensor, Tensor]:
    """Return `estimate_of_connor` of the first points of some data, no more than 500 of them."""
    found = []
    points = min(points, IMAGES)
    with local_parameters(parts.model), evaluation_mode(parts.model):
        for batch in seeded_batches(
            batches, points=points, size=20, seed=parts.seed, description="the paper's estimate"
        ):
            found.append(estimate_of_connor(parts.model, *batch, particles=PARTICLES))
    estimate, error = (torch.cat(each)[:points] for each in zip(*found, strict=True))
    return estimate, error


def estimate_of_connor(
    model: VAELLS,
    x: Tensor,
    y: Tensor | None = None,
    anchors: Tensor | None = None,
    *,
    particles: int,
) -> tuple[Tensor, Tensor]:
    """Return the estimate of Connor et al. of each image, in nats, and the error of sampled codes.

    Both are of shape `batch`; the error is the mean square a pixel.
    """
    operators, scale = model.operators, model.operators.scale
    z_dim, count = operators.z_dim, operators.num_operators
    start = model.code(x)
    start = start.expand(particles, *start.shape)
    z = operators(coefficient_prior(start, count, RATE).sample(), start)

    def log_density(begin: Tensor, c: Tensor, rate: float) -> Tensor:
        distance = (scale * (z - operators(c, begin))).square().sum(-1)
        norms = 0.5 * z_dim * math.log(2 * math.pi) + count * math.log(2 / rate)
        return -0.5 * distance - rate * c.abs().sum(-1) - norms

    c, _ = operators.infer(start, z, TransportGuide.inference_weight)
    posterior = log_density(start, c, RATE)
    starts = model.starts(y, anchors)
    best = model.best_path(starts, z)
    prior = log_density(select(starts, best["k"]), best["c"], PRIOR_RATE)
    square = (model.observation(z).mean - x).square().flatten(2)
    likelihood = -0.5 * (square.sum(-1) + square.shape[-1] * math.log(2 * math.pi))
    ratio = likelihood + prior - posterior
    return ratio.logsumexp(0) - math.log(particles), square.mean((0, 2))


def _covariance(codes: Tensor) -> Tensor:
    covariance = torch.cov(codes.T)
    ridge = RIDGE * covariance.diagonal().mean()
    return covariance + ridge * torch.eye(len(covariance)).to(covariance)
