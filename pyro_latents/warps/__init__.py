"""Spatial transformers: differentiable warps of images by a few numbers."""

from pyro_latents.warps.affine import Affine5, Affine6, AffineWarp, matrix_of_five
from pyro_latents.warps.spline import ThinPlateSpline
from pyro_latents.warps.warp import Border, Warp, pixel_grid

__all__ = [
    "Affine5",
    "Affine6",
    "AffineWarp",
    "Border",
    "ThinPlateSpline",
    "Warp",
    "matrix_of_five",
    "pixel_grid",
]
