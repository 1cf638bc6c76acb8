"""Networks compiled by TorchDynamo."""

import os
import shutil
from typing import Any

import torch
from torch import nn

from pyro_latents.errors import UserError

# What every story's model and guide call their large networks. Pyro's effects stay outside:
# tracing them would break the graph at every site.
NETWORKS = ("encoder", "decoder", "invariant.network")
COMPILERS = ("c++", "g++", "clang++")


def compile_networks(*programs: Any) -> None:
    """Compile the encoders and decoders of models and guides, in place.

    Parameters and their names stay as they are, and so do checkpoints. Compiling takes up to a
    minute, at the first batch of each shape.

    Args:
        *programs: Models and guides; one without such a network is left alone.

    Raises:
        UserError: if there is no C++ compiler, which a CPU needs.
    """
    if not torch.cuda.is_available() and not _compiler():
        raise UserError("--compile needs a C++ compiler on a CPU: install g++, or set CXX.")
    seen: set[nn.Module] = set()
    for program in programs:
        for name in NETWORKS:
            network = program
            for part in name.split("."):
                network = getattr(network, part, None)
            if isinstance(network, nn.Module) and network not in seen:
                seen.add(network)
                network.compile()


def _compiler() -> str | None:
    named = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    return next((path for path in map(shutil.which, named) if path), None)
