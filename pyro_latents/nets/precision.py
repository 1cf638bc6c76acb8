"""Where mixed precision ends: networks compute in half precision, densities in single."""

import torch
from torch import Tensor


def in_single(x: Tensor) -> Tensor:
    """Return what a network has computed, in single precision where autocast had it in half.

    What becomes a parameter of a distribution goes through this. Networks whose own parameters
    have half precision keep theirs, as what follows them has it too.
    """
    device = x.device.type
    mixed = torch.is_autocast_enabled(device) and x.dtype == torch.get_autocast_dtype(device)
    return x.float() if mixed else x
