"""Objectives: `pyro.infer.ELBO` subclasses for any model and guide."""

from pyro_latents.losses.differentiable import DifferentiableELBO

__all__ = ["DifferentiableELBO"]
