"""The entry to training: from parts to a trained run folder, on the devices that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pyro_latents.training.checkpoint import CHECKPOINT, read_checkpoint
from pyro_latents.training.hardware import build_fabric, is_first_rank, one_voice, quiet
from pyro_latents.training.loop import Loop, Trainable
from pyro_latents.training.options import FitOptions


def fit(
    parts: Trainable,
    folder: Path,
    options: FitOptions,
    *,
    resume: bool = False,
    begin: Callable[[], object] = lambda: None,
    gradient_clip: float = 0.0,
    patience: int = 0,
) -> Path:
    """Train parts and leave their checkpoint and history in a folder.

    On several devices, each rank calls this; the first one writes, to its own folder.

    Args:
        parts: What to train.
        folder: The run folder.
        options: How long and on what.
        resume: Whether to go on from the checkpoint in the folder.
        begin: Called by the first rank before its first step, if there are any to take: what
            there was fits, and is about to change.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        patience: Epochs without a better validation loss before training stops; 0 for never.

    Returns:
        The folder that was written.

    Raises:
        UserError: if a loss is not finite, or a checkpoint to resume from is damaged. Of several
            ranks only the first raises it; the others leave.
    """
    fabric = check_hardware(parts, options, folder)
    checkpoint = folder / CHECKPOINT if resume and (folder / CHECKPOINT).exists() else None
    with quiet(), one_voice(fabric, is_first_rank(options.ranks)):
        return fabric.launch(
            _train,  # type: ignore[arg-type]
            parts,
            folder,
            options,
            checkpoint,
            begin,
            gradient_clip=gradient_clip,
            patience=patience,
            eager=options.eager,
        )


def check_hardware(parts: Trainable, options: FitOptions, folder: Path) -> Fabric:
    """See that there are such devices, and return them.

    Raises:
        UserError: if not.
    """
    all_parameters = parts.plan.steps_use_all_parameters
    return build_fabric(options, all_parameters=all_parameters, folder=folder)


def _train(
    fabric: Fabric,
    parts: Trainable,
    folder: Path,
    options: FitOptions,
    checkpoint: Path | None,
    begin: Callable[[], object],
    **limits: Any,
) -> Path:
    loop = Loop(fabric, parts, folder, **limits)
    if checkpoint is not None:
        loop.restore(read_checkpoint(checkpoint, fabric.device))
    done = loop.is_done(options)
    if fabric.is_global_zero and not done:
        begin()
    if not done or not loop.progress.kept:
        loop.run(options)
    return fabric.broadcast(folder)
