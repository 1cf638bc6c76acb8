r"""Distributions on the unit sphere.

The von Mises-Fisher distribution in m dimensions depends on the angle :math:`\theta` to its mean
direction only. Everything about it is an integral of

.. math:: f(\theta) = e^{\kappa (\cos \theta - 1)} \sin^{m - 2} \theta, \qquad
          0 \le \theta \le \pi,

taken here by quadrature on nodes that shrink with the width of f, in any dimension and without
Bessel functions. Draws invert the distribution function of the angle and are differentiable in
the concentration by implicit differentiation.

References:
    Hyperspherical Variational Auto-Encoders (Davidson et al., 2018),
    https://arxiv.org/abs/1804.00891
    Implicit Reparameterization Gradients (Figurnov et al., 2018),
    https://arxiv.org/abs/1805.08498
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

_NODES = 513  # odd, for Simpson's rule
_WIDTHS = 9.0  # beyond this many standard deviations of the angle, f is below rounding


class _UnitSphere(constraints.Constraint):
    """Vectors of length one."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Whether the lengths are one, up to rounding."""
        return (value.norm(dim=-1) - 1).abs() < 1e-4


unit_sphere = _UnitSphere()


def log_sphere_area(dim: int) -> float:
    """The logarithm of the area of the unit sphere in `dim` dimensions."""
    return math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)


class HypersphericalUniform(TorchDistribution):
    """The uniform distribution on the unit sphere, in the dtype and on the device of `like`.

    Raises:
        ValueError: if the space around the sphere has but one dimension.
    """

    arg_constraints: dict = {}
    support = unit_sphere

    def __init__(
        self, dim: int, like: Tensor | None = None, batch_shape: Sequence[int] = ()
    ) -> None:
        if dim < 2:
            raise ValueError(f"HypersphericalUniform expects at least 2 dimensions; got {dim}.")
        self.dim = dim
        self.like = torch.zeros(()) if like is None else like
        super().__init__(torch.Size(batch_shape), torch.Size([dim]))

    def expand(
        self, batch_shape: Sequence[int], _instance: object = None
    ) -> HypersphericalUniform:
        """The same distribution with another batch shape."""
        return HypersphericalUniform(self.dim, self.like, batch_shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw directions, of shape `*sample *batch dim`."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            noise = torch.randn(shape, dtype=self.like.dtype, device=self.like.device)
            return noise / noise.norm(dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        """The same log-density everywhere, in nats."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_sphere_area(self.dim))


class VonMisesFisher(TorchDistribution):
    r"""A distribution around a direction on the unit sphere.

    .. math:: p(z) = e^{\kappa \mu^\top z} / Z_m(\kappa), \qquad |z| = 1

    Args:
        loc: The mean direction, of unit length, of shape `*batch dim`.
        concentration: How narrow it is, positive, of shape `*batch`.
    """

    arg_constraints = {"loc": unit_sphere, "concentration": constraints.positive}
    support = unit_sphere
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None
    ) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.concentration = concentration.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> VonMisesFisher:
        """The same distribution with another batch shape."""
        return VonMisesFisher(
            self.loc.expand(*batch_shape, self.loc.shape[-1]),
            self.concentration.expand(batch_shape),
            validate_args=False,
        )

    @property
    def mean(self) -> Tensor:
        """The mean, inside of the sphere."""
        return self.loc * self.mean_cosine.unsqueeze(-1)

    @property
    def mode(self) -> Tensor:
        """The mode, on the sphere."""
        return self.loc

    @property
    def mean_cosine(self) -> Tensor:
        """The expectation of the cosine of the angle, of shape `*batch`."""
        theta, density, weight = self._angles()
        mass = (density * weight).sum(-1)
        return (density * weight * theta.cos()).sum(-1) / mass

    def log_normaliser(self) -> Tensor:
        """`log Z`, of shape `*batch`."""
        _, density, weight = self._angles()
        integral = (density * weight).sum(-1).log()
        return log_sphere_area(self.event_shape[0] - 1) + self.concentration + integral

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, with respect to the area of the sphere."""
        if self._validate_args:
            self._validate_sample(value)
        cosine = (self.loc * value).sum(-1)
        return self.concentration * cosine - self.log_normaliser()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return self.log_normaliser() - self.concentration * self.mean_cosine

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw directions, of shape `*sample *batch dim`, with gradient in both parameters."""
        shape = self._extended_shape(torch.Size(sample_shape))
        theta = self._angle_sample(shape[:-1])
        tangent = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        # A direction at right angles to the mean direction.
        tangent = tangent - (tangent * self.loc).sum(-1, keepdim=True) * self.loc
        tangent = tangent / tangent.norm(dim=-1, keepdim=True)
        theta = theta.unsqueeze(-1)
        return theta.cos() * self.loc + theta.sin() * tangent

    def _angles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes of shape `*batch nodes`, f at them, and the weights of Simpson's rule."""
        dim = self.event_shape[0]
        kappa = self.concentration.unsqueeze(-1)
        width = (_WIDTHS + dim**0.5) / kappa.detach().clamp_min(1e-8).sqrt()
        largest = width.clamp_max(math.pi)
        fraction = torch.linspace(0, 1, _NODES, dtype=kappa.dtype, device=kappa.device)
        theta = largest * fraction
        density = (kappa * (theta.cos() - 1)).exp() * theta.sin().clamp_min(0.0) ** (dim - 2)
        simpson = torch.full_like(fraction, 2.0)
        simpson[1::2] = 4.0
        simpson[0] = simpson[-1] = 1.0
        return theta, density, largest / (_NODES - 1) / 3 * simpson

    def _angle_sample(self, shape: torch.Size) -> Tensor:
        with torch.no_grad():
            theta, density, _ = self._angles()
            # The trapezoidal rule is enough for a draw: its error is below 1e-5 of the width.
            steps = 0.5 * (density[..., 1:] + density[..., :-1]) * theta.diff(dim=-1)
            below = torch.cat([torch.zeros_like(steps[..., :1]), steps.cumsum(-1)], -1)
            below = below / below[..., -1:]
            uniform = torch.rand(shape, dtype=theta.dtype, device=theta.device)
            # `searchsorted` wants one row of probabilities for each row of draws.
            rows = below.expand(*shape, _NODES).contiguous()
            right = torch.searchsorted(rows, uniform.unsqueeze(-1)).clamp(1, _NODES - 1)
            nodes = theta.expand(*shape, _NODES)
            low, high = rows.gather(-1, right - 1), rows.gather(-1, right)
            part = (uniform.unsqueeze(-1) - low) / (high - low).clamp_min(1e-30)
            left = nodes.gather(-1, right - 1)
            drawn = (left + part * (nodes.gather(-1, right) - left)).squeeze(-1)
            if not self.concentration.requires_grad:
                return drawn
            slope = self._slope(drawn)
        return drawn + slope * (self.concentration - self.concentration.detach())

    def _slope(self, theta: Tensor) -> Tensor:
        """`d theta / d kappa` at fixed probability, `-(dF / d kappa) / f(theta)`.

        With `A` the mean cosine, `dF / d kappa` is the integral of `f (cos - A)` up to theta.
        """
        dim = self.event_shape[0]
        fraction = torch.linspace(0, 1, _NODES, dtype=theta.dtype, device=theta.device)
        t = theta.unsqueeze(-1) * fraction
        kappa = self.concentration.detach()
        ratio = (kappa.unsqueeze(-1) * (t.cos() - theta.cos().unsqueeze(-1))).exp()
        sines = (t.sin() / theta.sin().clamp_min(1e-12).unsqueeze(-1)).clamp_min(0.0)
        integrand = ratio * sines ** (dim - 2) * (t.cos() - self.mean_cosine.unsqueeze(-1))
        return -torch.trapezoid(integrand, dx=1 / (_NODES - 1), dim=-1) * theta


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_von_mises_fisher_uniform(p: VonMisesFisher, q: HypersphericalUniform) -> Tensor:
    return log_sphere_area(q.dim) - p.entropy()
