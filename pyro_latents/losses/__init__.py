"""Objectives: `pyro.infer.ELBO` subclasses for any model and guide."""

from pyro_latents.losses.analytic import TraceAnalytic_ELBO
from pyro_latents.losses.differentiable import DifferentiableELBO
from pyro_latents.losses.likelihood import LikelihoodLoss
from pyro_latents.losses.maximum import TraceMax_ELBO
from pyro_latents.losses.mmd import TraceMMD_ELBO

__all__ = [
    "DifferentiableELBO",
    "LikelihoodLoss",
    "TraceAnalytic_ELBO",
    "TraceMMD_ELBO",
    "TraceMax_ELBO",
]
