"""Guides: variational families that fit any model, and each story's own posterior."""

from pyro_latents.guides.check import GuideMismatch, check_guide

__all__ = ["GuideMismatch", "check_guide"]
