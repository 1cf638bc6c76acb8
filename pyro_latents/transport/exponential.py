"""The transport of points along operators."""

import torch
from torch import Tensor

from pyro_latents.errors import UserError


def transport(psi: Tensor, coefficients: Tensor, points: Tensor) -> Tensor:
    r"""Move points along the operators: :math:`T_\Psi(c) z = \exp(\sum_m c_m \Psi_m) z`.

    Differentiable in all three arguments. Leading dimensions broadcast.

    Args:
        psi: The transport operators, of shape `num_operators z_dim z_dim`.
        coefficients: The coefficients c, of shape `... num_operators`.
        points: The points z, of shape `... z_dim`.

    Returns:
        The moved points, of shape `... z_dim`.

    Raises:
        UserError: If the shapes do not fit each other.

    References:
        Variational Autoencoder with Learned Latent Structure (Connor, Canal, Rozell, 2020),
        equation (1), https://arxiv.org/abs/2006.10597

    Example:
        >>> turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
        >>> transport(turn, torch.tensor([1.0]), torch.tensor([1.0, 0.0]))
        tensor([0.5403, 0.8415])
    """
    check_operators(psi)
    if coefficients.shape[-1:] != psi.shape[:1] or points.shape[-1:] != psi.shape[-1:]:
        raise UserError(
            f"transport expects {psi.shape[0]} coefficients and points of {psi.shape[-1]} numbers "
            f"in the last dimension, as psi has the shape {tuple(psi.shape)}; got coefficients of "
            f"shape {tuple(coefficients.shape)} and points of shape {tuple(points.shape)}."
        )
    generator = (coefficients @ psi.flatten(1)).unflatten(-1, psi.shape[1:])
    return (torch.linalg.matrix_exp(generator) @ points.unsqueeze(-1)).squeeze(-1)


def check_operators(psi: Tensor) -> None:
    """Raise a UserError unless psi has the shape `num_operators z_dim z_dim`."""
    if psi.ndim != 3 or psi.shape[1] != psi.shape[2] or not psi.numel():
        raise UserError(
            "psi must hold transport operators, of shape (num_operators, z_dim, z_dim) with at "
            f"least one operator; got {tuple(psi.shape)}."
        )
