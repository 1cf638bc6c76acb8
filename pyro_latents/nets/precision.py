"""Where mixed precision ends: networks compute in half precision, densities in single."""

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def in_single(x: Tensor) -> Tensor:
    """Return what a network has computed, in single precision where autocast had it in half.

    What becomes a parameter of a distribution goes through this. Networks whose own parameters
    have half precision keep theirs, as what follows them has it too.
    """
    if x.dtype not in HALF or not torch.is_autocast_enabled(x.device.type):
        return x
    return x.float()


def uncast(x: Tensor) -> torch.autocast:
    """Compute as written, without autocast, on the device of this tensor."""
    return torch.autocast(x.device.type, enabled=False)
