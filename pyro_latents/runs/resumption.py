"""Whether a run can be gone on with: it is of the same recipe, and there are steps to take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pyro_latents.errors import UserError
from pyro_latents.runs.folder import RunFolder
from pyro_latents.training.options import FitOptions


def check_resumable(
    folder: RunFolder, ours: Mapping[str, Any], defaults: Mapping[str, Any], epoch_length: int
) -> None:
    """Raise a `UserError` unless a run was trained as is asked for now, and no longer than that.

    Args:
        folder: The run.
        ours: The configuration that it would be gone on with.
        defaults: The numbers of the recipe as published, which a run has from before they existed.
        epoch_length: Steps in an epoch.
    """
    theirs = folder.read_config()
    _check_same(folder, theirs, ours, defaults)
    done = folder.step()
    last, begun = (_last_step(config["training"], epoch_length) for config in (ours, theirs))
    if ours["settings"]["schedule"] == "fall" and last != begun:
        raise UserError(
            f"the learning rates of {folder.path} fall to zero at step {begun}, not {last}: "
            "resume with the same --epochs or --steps, or give another --out."
        )
    if last < done:
        raise UserError(
            f"{folder.path} has been trained for {done} steps, more than the {last} that "
            "are asked for: give more, or leave it as it is."
        )


def _check_same(
    folder: RunFolder,
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:
    model, asked_model = (c.get("model_from", {}).get("hash") for c in (theirs, ours))
    if model != asked_model:
        raise UserError(
            f"{folder.path} was trained with another --model-from: resume with the same, or "
            "give another --out."
        )
    found = {**ours["training"], **defaults, **_flat(theirs)}
    asked = _flat(ours)
    # It may be resumed for more epochs, and elsewhere.
    fixed: Collection[str] = {"guide", "seed", "limit_train", "precision", *ours["settings"]}
    for key in ("recipe", *sorted(set(fixed) - {"epochs"})):
        if found[key] != asked[key]:
            raise UserError(
                f"{folder.path} was trained with {key} {found[key]}, not {asked[key]}: "
                "resume with the same options, or give another --out."
            )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config["training"], **config, **config["settings"]}


def _last_step(training: Mapping[str, Any], epoch_length: int) -> int:
    lengths = {name: training[name] for name in ("epochs", "steps")}
    return FitOptions(**lengths).last_step(epoch_length)
