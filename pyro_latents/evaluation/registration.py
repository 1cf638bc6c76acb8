"""By how much one image is turned against another."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_latents.data.affine import rotate


def rotation_between(
    images: Tensor, turned: Tensor, *, max_angle: float = 90.0, steps: int = 61
) -> Tensor:
    """Find the rotation that brings images nearest to others, by search.

    Nearest is by the cosine of the pixels, so that a change of brightness does not matter.

    Args:
        images: Of shape `batch channels height width`.
        turned: What they are compared with, of the same shape.
        max_angle: The search goes from minus to plus this angle, in degrees.
        steps: Angles to try, evenly spaced.

    Returns:
        The angles in degrees, counter-clockwise, of shape `batch`.
    """
    angles = torch.linspace(-max_angle, max_angle, steps, device=images.device)
    scores = []
    for angle in angles:
        tried = rotate(images, angle.deg2rad().expand(len(images)))
        scores.append(F.cosine_similarity(tried.flatten(1), turned.flatten(1)))
    return angles[torch.stack(scores).argmax(0)]
