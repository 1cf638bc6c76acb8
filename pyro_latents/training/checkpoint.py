"""Checkpoints: written whole or not at all, read without running code, and checked for damage."""

import zipfile
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pyro_latents.errors import UserError
from pyro_latents.files import write_atomically

CHECKPOINT = "checkpoint.ckpt"
BEST = "best.ckpt"
HISTORY = "history.csv"

# The entries of this package's checkpoints.
ENTRIES = {"parameters", "optimizers", "progress"}


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it."""
    write_atomically(path, partial(_save, content))


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors and plain values.

    Returns:
        Its ``parameters`` (of model and guide), ``optimizers`` and ``progress``.

    Raises:
        UserError: if it is missing, truncated or damaged, or holds anything else.
    """
    if not path.is_file():
        raise UserError(
            f"{path.parent} has no {path.name} yet: the run stopped before its first epoch was "
            "saved. Train it with --resume."
        )
    try:
        # The sums that torch writes beside every tensor, and does not look at when it reads.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(
            f"{path} is truncated or damaged and cannot be read; train the run anew."
        ) from error
    if damaged is not None:
        raise UserError(f"{path} is damaged: {damaged} is not what was written; train it anew.")
    if not _is_ours(content):
        raise UserError(f"{path} is not a checkpoint of this version; train the run anew.")
    return content


def _save(content: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # Of a full disk torch says no more than that the file has another length.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _is_ours(content: Any) -> bool:
    """Whether it has the entries of a checkpoint, which name their parts, and the step."""
    if not isinstance(content, dict) or not content.keys() >= ENTRIES:
        return False
    named = all(isinstance(content[entry], dict) for entry in ENTRIES)
    return named and isinstance(content["progress"].get("step"), int)
