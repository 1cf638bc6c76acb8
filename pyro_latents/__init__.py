"""Structured-latent variational autoencoders in Pyro: models with swappable guides."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

__all__ = ["SVI", "captured", "zoo"]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    # Pyro and torch are imported when they are used, so that `import pyro_latents` is quick.
    if name == "SVI":
        return import_module("pyro_latents.programs").SVI
    if name == "captured":
        return import_module("pyro_latents.losses.captured").captured
    if name == "zoo":
        return import_module("pyro_latents.zoo")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
