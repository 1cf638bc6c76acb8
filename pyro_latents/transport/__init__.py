"""Transport operators: matrix exponentials that move points, and the inference of their paths."""

from pyro_latents.transport.coefficients import infer_coefficients
from pyro_latents.transport.exponential import transport
from pyro_latents.transport.initial import fit_operators
from pyro_latents.transport.operators import TransportOperators

__all__ = ["TransportOperators", "fit_operators", "infer_coefficients", "transport"]
