"""How good a model and its guide are: bounds, evidence and diagnostics, in nats per data point."""

from pyro_latents.evaluation.annealed import (
    AnnealedEvidence,
    EvidenceInterval,
    annealed_evidence,
    evidence_interval,
)
from pyro_latents.evaluation.verdict import TrustedDraws, trusted_posterior

__all__ = [
    "AnnealedEvidence",
    "EvidenceInterval",
    "TrustedDraws",
    "annealed_evidence",
    "evidence_interval",
    "trusted_posterior",
]
