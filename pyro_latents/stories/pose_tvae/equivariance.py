"""Whether a pose follows the turning of an image, and what else stays the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_latents.data.affine import rotate


@dataclass(frozen=True)
class Equivariance:
    """What turning test images did.

    Args:
        within: The circular correlation of the angle an image was turned by with the angle of its
            inferred pose, the mean over the images.
        pooled: The same over all images and angles together: it also asks that the reference pose
            is upright for every image.
        input_change: The mean squared change of a pixel of the turned image from the upright one.
        reference_change: The same of the reference image that was inferred.
    """

    within: float
    pooled: float
    input_change: float
    reference_change: float


def circular_correlation(a: Tensor, b: Tensor, dim: int = 0) -> Tensor:
    r"""Correlate two angles along a dimension: 1 if they turn together, -1 if oppositely.

    .. math:: r = \frac{R(a - b) - R(a + b)}{2 \sqrt{V(a) V(b)}}, \qquad
              R(\alpha) = |\overline{e^{i \alpha}}|, \quad
              V(\alpha) = \overline{\sin^2(\alpha - \bar\alpha)}

    This form needs no mean direction in its numerator, which uniform angles do not have.

    Args:
        a: Angles in radians, of shape `n ...`.
        b: Angles in radians, of the same shape.
        dim: The dimension of the sample.

    References:
        Topics in Circular Statistics (Jammalamadaka and SenGupta, 2001), section 8.2
    """
    together, opposed = _resultant(a - b, dim).abs(), _resultant(a + b, dim).abs()
    spread = _sine_variance(a, dim) * _sine_variance(b, dim)
    return (together - opposed) / (2 * spread.sqrt()).clamp_min(torch.finfo(a.dtype).tiny)


def equivariance(
    images: Tensor,
    pose_angle: Callable[[Tensor], Tensor],
    reference: Callable[[Tensor], Tensor],
    *,
    num_angles: int = 36,
) -> Equivariance:
    """Turn images all the way round and see what follows.

    Args:
        images: Upright images, of shape `batch channels height width`.
        pose_angle: Maps images to the angle of their inferred pose in radians, `batch`, counted
            in either direction.
        reference: Maps images to what should not change, `batch channels height width`.
        num_angles: Evenly spaced angles, the first of them zero.
    """
    turns = torch.arange(num_angles, device=images.device) * (2 * torch.pi / num_angles)
    inferred, input_changes, reference_changes = [], [], []
    with torch.no_grad():
        upright_reference = reference(images)
        for turn in turns:
            turned = rotate(images, turn.expand(len(images)))
            inferred.append(pose_angle(turned))
            input_changes.append((turned - images).square().mean().item())
            reference_changes.append(
                (reference(turned) - upright_reference).square().mean().item()
            )
    angles = torch.stack(inferred)
    turned_by = turns[:, None].expand_as(angles)
    within = circular_correlation(turned_by, angles).mean()
    pooled = circular_correlation(turned_by.flatten(), angles.flatten())
    moved = max(num_angles - 1, 1)
    return Equivariance(
        within.item(), pooled.item(), sum(input_changes) / moved, sum(reference_changes) / moved
    )


def _resultant(angles: Tensor, dim: int) -> Tensor:
    return torch.complex(angles.cos(), angles.sin()).mean(dim)


def _sine_variance(angles: Tensor, dim: int) -> Tensor:
    mean = _resultant(angles, dim).angle().unsqueeze(dim)
    return (angles - mean).sin().square().mean(dim)
