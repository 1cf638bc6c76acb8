"""A learned set of transport operators as a module."""

import torch
from torch import Tensor, nn

from pyro_latents.transport.coefficients import Search, descend, infer_coefficients
from pyro_latents.transport.exponential import transport


class TransportOperators(nn.Module):
    """The operators, how points move along them, and the inference of paths.

    Args:
        num_operators: The number of operators.
        z_dim: The dimension of the points.
        init_scale: Standard deviation of the initial entries.
        restarts: Random starts of the inference.
        search: What is searched for coefficients (`infer_coefficients`).
        scale: What codes are divided by before they are transported, so that the entries of
            points are near 1: inference works best there.

    Attributes:
        psi: The operators, of shape `num_operators z_dim z_dim`.
        scale: The scale, saved with the operators.
    """

    scale: Tensor

    def __init__(
        self,
        num_operators: int,
        z_dim: int,
        *,
        init_scale: float = 0.01,
        restarts: int = 1,
        search: Search = "wide",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.psi = nn.Parameter(init_scale * torch.randn(num_operators, z_dim, z_dim))
        self.register_buffer("scale", torch.tensor(scale))
        self.restarts = restarts
        self.search = search

    @property
    def num_operators(self) -> int:
        """The number of operators."""
        return len(self.psi)

    @property
    def z_dim(self) -> int:
        """The dimension of the points."""
        return self.psi.shape[-1]

    def forward(self, coefficients: Tensor, points: Tensor) -> Tensor:
        """Move points, of shape `... z_dim`, by coefficients, of shape `... num_operators`."""
        return transport(self.psi, coefficients, points)

    def descend(self, start: Tensor, end: Tensor, l1_weight: float, first: Tensor) -> Tensor:
        """Coefficients `... num_operators` where descents end, the best of each pair.

        The descents, for paths from `start` to `end` of shape `... z_dim`, begin at `first`, of
        shape `starts ... num_operators`.
        """
        c, _ = descend(
            self.psi, start.flatten(0, -2), end.flatten(0, -2), l1_weight, first.flatten(1, -2)
        )
        return c.view(first.shape[1:])

    def infer(
        self, start: Tensor, end: Tensor, l1_weight: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Coefficients from `start` to `end`, any leading dimensions, without gradient.

        The weight is one for all pairs, or has their leading dimensions.

        Returns:
            The coefficients, of shape `... num_operators`, and the objectives, of shape `...`.
        """
        c, objective = infer_coefficients(
            self.psi,
            start.reshape(-1, start.shape[-1]),
            end.reshape(-1, end.shape[-1]),
            l1_weight.reshape(-1) if isinstance(l1_weight, Tensor) else l1_weight,
            restarts=self.restarts,
            search=self.search,
        )
        return c.view(*start.shape[:-1], -1), objective.view(start.shape[:-1])
