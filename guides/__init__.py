"""Guides: variational families that fit any model, and each story's own posterior."""
