"""Generative models, one readable file a story."""
