"""Random deformation of images, a regulariser of what reads them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_latents.warps.affine import Affine6


class RandomAffine(nn.Module):
    """Warps every image by an affine map of its own, in training only.

    Args:
        x_shape: Shape of one image, `channels height width`.
        scale: Standard deviation of the six numbers of a map about the identity, where the frame
            reaches from -1 to 1: 0.1 turns by about four degrees, scales by a tenth and shifts
            an image of 28 pixels by 1.4.
    """

    def __init__(self, x_shape: Sequence[int], scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.warp = Affine6((x_shape[-2], x_shape[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Warp images of shape `n channels height width`; in evaluation, return them."""
        if not self.training:
            return x
        offsets = torch.randn(len(x), self.warp.num_parameters, device=x.device, dtype=x.dtype)
        return self.warp(x, self.scale * offsets)

    def extra_repr(self) -> str:
        """Return the scale, for printing."""
        return f"scale={self.scale}"
