"""How good a model and its guide are: bounds, evidence and diagnostics, in nats per data point."""

from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import Evidence, log_evidence

__all__ = ["Evidence", "bound_terms", "log_evidence"]
