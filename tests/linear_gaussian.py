"""Probabilistic PCA: a model whose evidence and posterior are known in closed form."""

import pyro
import torch
from pyro.distributions import MultivariateNormal, Normal
from torch import Tensor


class LinearGaussian:
    """``z ~ N(0, I)``, ``x ~ N(W z, scale^2 I)``, with guides of chosen quality."""

    def __init__(self, x_dim: int = 5, z_dim: int = 2, scale: float = 0.5) -> None:
        self.weight = torch.randn(x_dim, z_dim)
        self.scale = scale
        self.z_dim = z_dim
        precision = torch.eye(z_dim) + self.weight.T @ self.weight / scale**2
        self.posterior_covariance = precision.inverse()

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", Normal(0.0, 1.0).expand([self.z_dim]).to_event(1))
            return pyro.sample("x", Normal(z @ self.weight.T, self.scale).to_event(1), obs=x)

    def exact_guide(self, x: Tensor, size: int = 1) -> None:
        self._guide(x, self.posterior_covariance)

    def narrow_guide(self, x: Tensor, size: int = 1) -> None:
        self._guide(x, self.posterior_covariance / 6)

    def wide_guide(self, x: Tensor, size: int = 1) -> None:
        self._guide(x, self.posterior_covariance * 1.5)

    def _guide(self, x: Tensor, covariance: Tensor) -> None:
        loc = x @ self.weight @ self.posterior_covariance / self.scale**2
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", MultivariateNormal(loc, covariance))

    def log_evidence(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + self.scale**2 * torch.eye(len(self.weight))
        return MultivariateNormal(torch.zeros(len(self.weight)), covariance).log_prob(x)
