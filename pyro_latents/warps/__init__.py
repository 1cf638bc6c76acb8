"""Spatial transformers: differentiable warps of images by a few numbers."""

from pyro_latents.warps.affine import Affine5, Affine6, AffineWarp
from pyro_latents.warps.spline import ThinPlateSpline
from pyro_latents.warps.warp import Warp, pixel_grid

__all__ = ["Affine5", "Affine6", "AffineWarp", "ThinPlateSpline", "Warp", "pixel_grid"]
