"""Transport operators: matrix exponentials that move points, and the inference of their paths."""

from pyro_latents.transport.coefficients import infer_coefficients
from pyro_latents.transport.exponential import transport

__all__ = ["infer_coefficients", "transport"]
