r"""A proposal for the program of VAELLS with explicit anchor, coefficients and code.

.. math:: q(k, c, z | x) = q(k | x) \, q(c | k, x) \, q(z | c, k, x)

It is made by linearising the decoder at the code and each path at the coefficients that the
solver finds: the likelihood of z is then normal, :math:`N(z; m, \Lambda^{-1})`, a path normal in
c, and the posterior known but for the Laplace prior, which stays within the search. `log_evidence`
weighs its draws: what it misses shows in k-hat. Precisions of narrow paths and flat priors differ
by ten orders of magnitude: they are worked out in double precision whatever that of the model.

The guides of `pyro_latents.guides.vaells` are those of the paper, in whose objective k and c are
marginalised by their maximum; they cannot propose for the program as it is run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import (
    Categorical,
    Distribution,
    MultivariateStudentT,
    TorchDistribution,
    constraints,
)
from pyro.nn import PyroModule
from torch import Tensor

from pyro_latents.models.vaells import VAELLS, coefficient_prior, select
from pyro_latents.transport.exponential import transport

# Gauss-Newton steps to the mode of the likelihood, and along each path.
CODE_STEPS, PATH_STEPS = 3, 3
# Tails that are heavier than the posterior's, and a share of draws from the prior: paths that the
# solver does not find are drawn now and then.
FREEDOM, OF_PRIOR, OF_ANY_ANCHOR = 8.0, 0.2, 0.1


class Seen(NamedTuple):
    """What the likelihood says of the code: a normal, up to a factor.

    Attributes:
        loc: Its mean, of shape `batch z_dim`.
        precision: The inverse of its covariance, of shape `batch z_dim z_dim`.
    """

    loc: Tensor
    precision: Tensor


class Paths(NamedTuple):
    """What is known of the path from each anchor to what is seen.

    Attributes:
        logits: The posterior of the anchors, of shape `batch num_anchors`.
        loc: The coefficients, of shape `batch num_anchors num_operators`.
        scale_tril: A factor of their covariance, `batch num_anchors num_operators num_operators`.
    """

    logits: Tensor
    loc: Tensor
    scale_tril: Tensor


class EvidenceGuide(PyroModule):
    """q(k | x) q(c | k, x) q(z | c, k, x), around the paths that the solver finds.

    It has no parameters of its own and is not for training.

    Args:
        model: The model; it is kept unregistered.
    """

    def __init__(self, model: VAELLS) -> None:
        super().__init__()
        self._model = (model,)

    def posterior(
        self, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None
    ) -> dict[str, Distribution]:
        """Return what the code would be without a prior: the normal of the likelihood."""
        seen = likelihood_of_code(self._model[0], x)
        return {"z": _student(seen.loc, _ridged(seen.precision, 1.0), x.dtype)}

    def forward(
        self, x: Tensor, y: Tensor | None = None, anchors: Tensor | None = None, *, size: int = 1
    ) -> Tensor:
        """Draw an anchor, coefficients and a code; `size` is the model's and unused."""
        model = self._model[0]
        starts = model.starts(y, anchors)
        starts = starts.expand(len(x), *starts.shape[-2:])
        seen = likelihood_of_code(model, x)
        paths = paths_to(model, starts, seen)
        near = (1 - OF_ANY_ANCHOR) * paths.logits.softmax(-1)
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", Categorical(near + OF_ANY_ANCHOR / near.shape[-1]))
            start = select(starts, k)
            where = (select(part, k).to(start) for part in paths[1:])
            found = MultivariateStudentT(FREEDOM, *where)
            prior = coefficient_prior(start, model.operators.num_operators, model.coefficient_rate)
            c = pyro.sample("c", Defended(found, prior))
            return pyro.sample("z", code_given(seen, model.operators(c, start), model.noise_scale))


class Defended(TorchDistribution):
    """A proposal that is mixed with the prior, so that weights are bounded by its share.

    Args:
        proposal: A distribution of vectors.
        prior: Another one, of the same shape.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, proposal: TorchDistribution, prior: TorchDistribution) -> None:
        self.proposal, self.prior = proposal, prior
        super().__init__(proposal.batch_shape, proposal.event_shape, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw from one of the two."""
        found, other = self.proposal.sample(sample_shape), self.prior.sample(sample_shape)
        return torch.where(torch.rand_like(found[..., :1]) < OF_PRIOR, other, found)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the density of the mixture."""
        shares = torch.tensor([1 - OF_PRIOR, OF_PRIOR]).log().tolist()
        parts = (self.proposal, self.prior)
        scored = [share + part.log_prob(value) for share, part in zip(shares, parts, strict=True)]
        return torch.logaddexp(*scored)


def likelihood_of_code(model: VAELLS, x: Tensor) -> Seen:
    """Linearise the decoder near the code of `x`, at the mode of a normal likelihood."""
    z = model.code(x)
    loss, step, precision = _gauss_newton(model, x, z)
    for _ in range(CODE_STEPS):
        tried = z + step
        found = _gauss_newton(model, x, tried)
        better = found[0] < loss
        z = torch.where(better[:, None], tried, z)
        # A step that was too long is tried again at half its length.
        step = torch.where(better[:, None], found[1], 0.5 * step)
        precision = torch.where(better[:, None, None], found[2], precision)
        loss = torch.where(better, found[0], loss)
    return Seen(z.double(), precision)


def code_given(seen: Seen, loc: Tensor, scale: Tensor) -> TorchDistribution:
    """q(z | c, k, x): what is seen, and a normal of that scale around where the path ends."""
    around = scale.double() ** -2 * torch.eye(loc.shape[-1]).to(seen.loc)
    return normal_code(seen, Seen(loc.double(), around), loc.dtype)


def normal_code(seen: Seen, prior: Seen, kind: torch.dtype) -> TorchDistribution:
    """The posterior of a code under a normal prior and what is seen, with heavier tails."""
    precision = seen.precision + prior.precision
    pulled = _times(seen.precision, seen.loc) + _times(prior.precision, prior.loc)
    mean = torch.linalg.solve(precision, pulled[..., None]).squeeze(-1)
    return _student(mean, precision.expand(*mean.shape, mean.shape[-1]), kind)


def paths_to(model: VAELLS, starts: Tensor, seen: Seen) -> Paths:
    """Linearise the paths from each of the starts, `batch num_anchors z_dim`, to what is seen.

    The distance from a path is measured by the covariance of the code around it and of what is
    seen, together.
    """
    psi, rate = model.operators.psi.detach().double(), model.coefficient_rate.double()
    starts, width = starts.double(), model.noise_scale.double()
    # Codes have entries near one: where nothing is seen they are as wide as that.
    spread = torch.linalg.inv(_ridged(seen.precision, 1.0))
    spread = _ridged(spread, width**2)[:, None]
    ends = seen.loc[:, None].expand_as(starts)
    square = spread.diagonal(dim1=-2, dim2=-1).mean(-1).expand(starts.shape[:-1])
    c, _ = model.operators.infer(starts, ends, rate * square)
    metric = torch.linalg.inv(spread)

    def look(c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The negative log-density at c, a step that lowers it, and the precision of c."""
        moved, slopes = _along_path(psi, c, starts)
        miss = ends - moved
        weighed = _times(metric, miss)
        energy = 0.5 * (miss * weighed).sum(-1) + rate * c.abs().sum(-1)
        # Half the inverse variance of the prior, for directions in which nothing is seen.
        curvature = _ridged(slopes @ metric @ slopes.mT, 0.5 * rate**2)
        slope = _times(slopes, weighed) - rate * c.sign()
        return energy, torch.linalg.solve(curvature, slope[..., None]).squeeze(-1), curvature

    energy, step, curvature = look(c)
    for _ in range(PATH_STEPS):
        found = look(c + step)
        better = found[0] < energy
        c = torch.where(better[..., None], c + step, c)
        step = torch.where(better[..., None], found[1], 0.5 * step)
        curvature = torch.where(better[..., None, None], found[2], curvature)
        energy = torch.where(better, found[0], energy)
    logits = -energy - 0.5 * torch.logdet(curvature)
    return Paths(logits, c, _factor(curvature))


def _gauss_newton(model: VAELLS, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Half the squared error of decoding `z`, a step that lowers it, and z's precision there."""

    def decode(z: Tensor) -> Tensor:
        return model.observation(z).mean.flatten(1)

    scale = model.observation(z).stddev.flatten(1)
    mean, slopes = _derivatives(decode, z)
    error, slopes = (x.flatten(1) - mean) / scale, (slopes / scale[:, None]).double()
    precision = slopes @ slopes.mT
    pull = _times(slopes, error.double())[..., None]
    step = torch.linalg.solve(_ridged(precision, 1.0), pull).squeeze(-1)
    return 0.5 * error.square().sum(-1), step.to(z), precision


def _along_path(psi: Tensor, c: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Where coefficients lead to, `... z_dim`, and its slopes, `... num_operators z_dim`."""
    return _derivatives(lambda c: transport(psi, c, start), c)


def _derivatives(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """The value, and the derivative by each entry of the last dimension, before the last one."""
    value, slopes = at, []
    for direction in torch.eye(at.shape[-1]).to(at):
        # By two passes backwards: torch's forward mode warns when it is first used.
        value, slope = torch.autograd.functional.jvp(function, at, direction.expand_as(at))
        slopes.append(slope)
    return value, torch.stack(slopes, -2)


def _ridged(matrix: Tensor, by: float | Tensor) -> Tensor:
    """A matrix with something added to its diagonal."""
    return matrix + by * torch.eye(matrix.shape[-1]).to(matrix)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None]).squeeze(-1)


def _factor(precision: Tensor) -> Tensor:
    """A lower triangular factor of the inverse of a precision, without inverting it."""
    inverse = torch.linalg.cholesky(precision.flip((-2, -1))).flip((-2, -1)).mT
    unit = torch.eye(precision.shape[-1]).to(precision).expand_as(precision)
    return torch.linalg.solve_triangular(inverse, unit, upper=False)


def _student(loc: Tensor, precision: Tensor, kind: torch.dtype) -> MultivariateStudentT:
    return MultivariateStudentT(FREEDOM, loc.to(kind), _factor(precision).to(kind))
