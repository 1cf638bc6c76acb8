"""Runs whose weights come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_latents.runs.recipe import Run
from pyro_latents.runs.weights import pretrained_folder


def pretrained(
    name: str,
    *,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    data: Any = None,
) -> Run:
    """Open a run that has been trained already; nothing is downloaded, and nothing written.

    Args:
        name: Such as ``vae-mnist-v1``; without the version the newest is meant. Weights of another
            guide for the same model have its name before the version, as in ``vae-mnist-flow-v1``.
        out: Where results go that `Run.evaluate` and others write; ``runs/NAME`` if not given.
        data_dir: Where the data set lies that it was trained on, which measuring needs; None for
            ``PYRO_LATENTS_DATA``.
        data: Other data to measure it on, as `Run` takes them: ``"digits"`` are embedded. Their
            results go to a folder of theirs within ``out``, beside the figures of the card.

    Raises:
        UserError: if there are no such weights, with the near names.

    Example:
        >>> run = pretrained("vaells-swiss-roll")
        >>> run.sample(4).shape
        torch.Size([4, 20])
    """
    return Run(pretrained_folder(name, out), data_dir=data_dir, data=data)
