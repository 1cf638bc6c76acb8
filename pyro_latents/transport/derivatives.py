"""What a solver needs to know of many residuals at a point."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Derivatives:
    """Half squared residuals and their derivatives, the batch in the last dimension.

    Attributes:
        value: `0.5 * |residual|^2`, of shape `batch`.
        gradient: Of shape `num_operators batch`.
        gauss_newton: `J^T J`, of shape `num_operators num_operators batch`.
        hessian: Of the same shape; the Gauss-Newton matrix itself where it is not exact.
    """

    value: Tensor
    gradient: Tensor
    gauss_newton: Tensor
    hessian: Tensor

    @staticmethod
    def join(parts: list["Derivatives"], index: Tensor) -> "Derivatives":
        """Put side by side what belongs to the columns `index`, and bring them in order."""
        back = torch.empty_like(index)
        back[index] = torch.arange(len(index), device=index.device)
        return Derivatives(
            *(
                torch.cat([getattr(part, field.name) for part in parts], -1)[..., back]
                for field in fields(Derivatives)
            )
        )

    def take(self, index: Tensor) -> "Derivatives":
        """The columns `index`."""
        return Derivatives(*(getattr(self, field.name)[..., index] for field in fields(self)))

    def where(self, chosen: Tensor, other: "Derivatives") -> "Derivatives":
        """These columns where `chosen`, those of `other` elsewhere."""
        return Derivatives(
            *(
                torch.where(chosen, getattr(self, field.name), getattr(other, field.name))
                for field in fields(self)
            )
        )
