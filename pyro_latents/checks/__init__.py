"""Posterior and prior predictive checks by statistics of the data, and their ArviZ form."""

from pyro_latents.checks.predictive import Replicates, replicates
from pyro_latents.checks.statistics import IMAGE_STATISTICS, VECTOR_STATISTICS, Statistic

__all__ = ["IMAGE_STATISTICS", "VECTOR_STATISTICS", "Replicates", "Statistic", "replicates"]
