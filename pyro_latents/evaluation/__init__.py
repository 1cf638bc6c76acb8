"""How good a model and its guide are: bounds, evidence and diagnostics, in nats per data point."""

from pyro_latents.evaluation.annealed import (
    AnnealedEvidence,
    EvidenceInterval,
    annealed_evidence,
    evidence_interval,
)

__all__ = ["AnnealedEvidence", "EvidenceInterval", "annealed_evidence", "evidence_interval"]
