"""Structured-latent variational autoencoders in Pyro: models with swappable guides."""

__version__ = "0.1.0"
