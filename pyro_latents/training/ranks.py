"""The processes of a training on several devices, one a device: its ranks."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import distributed

from pyro_latents.errors import UserError

T = TypeVar("T")


def is_first_rank(ranks: int) -> bool:
    """Whether this process writes the run folder: it is the only one, or the first of several.

    Args:
        ranks: The number of processes. A single one is the first, whatever its place among
            others that a cluster's scheduler has started.
    """
    return ranks == 1 or rank_zero_only.rank == 0


def together(compute: Callable[[], T], device: torch.device) -> T:
    """Compute something on every rank; if one of them fails, all do, with the same message.

    A rank that failed alone would leave the others waiting for its gradient.

    Args:
        compute: What this rank computes.
        device: Where the ranks can tell each other of a failure.

    Raises:
        UserError: that of the first rank which raised one.
    """
    if not distributed.is_initialized():
        return compute()
    mine: UserError | None = None
    try:
        result = compute()
    except UserError as error:
        mine = error
    failures = torch.tensor(float(mine is not None), device=device)
    distributed.all_reduce(failures)
    if not failures:
        return result
    messages: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(messages, mine and str(mine))
    raise UserError(next(filter(None, messages))) from mine


def silence() -> None:
    """Stop printing, in a rank that runs the user's whole program beside the first one."""
    sys.stdout = open(os.devnull, "w")
