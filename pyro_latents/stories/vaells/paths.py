"""Whether learned transport operators follow the manifold of the data."""

import math

import torch
from scipy.stats import spearmanr
from torch import Tensor

from pyro_latents.transport import TransportOperators


def path_length_correlation(
    operators: TransportOperators, start: Tensor, codes: Tensor, position: Tensor, l1_weight: float
) -> float:
    """Spearman's correlation of inferred path lengths with distances along a curve.

    Args:
        operators: The transport operators.
        start: The code that all paths start from, of shape `z_dim`.
        codes: Where they end, of shape `batch z_dim`.
        position: The distance of each code's data point from that of the start, along the curve.
        l1_weight: The weight of the L1 term in the inference.
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


def distance_from_orbit(codes: Tensor, radius_parts: int = 720) -> float:
    """The largest distance of codes from the ellipse around zero that fits them best.

    An orbit of a rotation-like operator in two dimensions is such an ellipse, `z' S z = 1`; the
    fit is by least squares in S.

    Args:
        codes: Points of one closed curve, of shape `batch 2`.
        radius_parts: Points of the ellipse that distances are taken to.

    Returns:
        The largest distance divided by the mean distance of the codes from zero.
    """
    x, y = codes.double().T
    design = torch.stack([x * x, 2 * x * y, y * y], 1)
    a, b, c = torch.linalg.lstsq(design, torch.ones_like(x)[:, None]).solution[:, 0]
    angle = 2 * torch.pi * torch.arange(radius_parts, dtype=x.dtype) / radius_parts
    u = torch.stack([angle.cos(), angle.sin()], 1)
    radius = (a * u[:, 0] ** 2 + 2 * b * u[:, 0] * u[:, 1] + c * u[:, 1] ** 2).rsqrt()
    distance = torch.cdist(codes.double(), radius[:, None] * u).amin(1)
    return float(distance.amax() / codes.double().norm(dim=1).mean())


def distance_from_path(
    psi: Tensor, codes: Tensor, *, path_parts: int = 360, starts: int = 60
) -> float:
    """The largest distance of codes from one path of an operator, `expm(c psi) z`.

    The path goes half a turn of the operator's rotation to both sides of its start, which is the
    code whose path fits best.

    Args:
        psi: The operator, of shape `2 2`.
        codes: Points of one closed curve, of shape `batch 2`.
        path_parts: Points of the path that distances are taken to.
        starts: Codes that are tried as starts.

    Returns:
        The largest distance divided by the mean distance of the codes from zero; infinite for an
        operator that does not rotate.
    """
    psi, codes = psi.detach().double().cpu(), codes.detach().double().cpu()
    speed = torch.linalg.eigvals(psi).imag.abs().amax()
    if speed == 0:
        return math.inf
    c = torch.pi / speed * torch.linspace(-1, 1, path_parts, dtype=psi.dtype)
    moves = torch.linalg.matrix_exp(c[:, None, None] * psi)
    tried = codes[torch.linspace(0, len(codes) - 1, min(starts, len(codes))).long()]
    nearest = [torch.cdist(codes, moves @ start).amin(1).amax() for start in tried]
    return float(torch.stack(nearest).amin() / codes.norm(dim=1).mean())
