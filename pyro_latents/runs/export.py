"""The trained parameters of a run in a folder of their own, without what a training needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.files import check_writable, write_atomically
from pyro_latents.runs.folder import PREFIX, SHARED, WEIGHTS, RunFolder
from pyro_latents.runs.registry import stored_story


def write_export(folder: RunFolder, out: Path, *, half: bool = False, model: bool = True) -> Path:
    """Write a run's configuration, parameters and figures into a new folder.

    The configuration does not say where on this machine the data were, or another run that the
    model is from; it names the class of the story beside the recipe. Numbers that model and guide
    share are written once.

    Args:
        folder: The run.
        out: The folder to make.
        half: Whether to keep 16 bits of each number.
        model: Whether to keep the parameters of the model, or those of the guide alone.

    Raises:
        UserError: if the folder is there, or cannot be written.
    """
    from safetensors.torch import save

    config, parameters = folder.read_config(), folder.read_parameters()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: give another folder.")
    check_writable(out, "give another folder")
    out.mkdir(parents=True, exist_ok=True)
    kept, shared = _distinct(parameters, half=half)
    if not model:
        kept = {name: value for name, value in kept.items() if not _is_of_model(name)}
        shared = {name: same for name, same in shared.items() if not _is_of_model(name)}
    content = save(kept, {SHARED: json.dumps(shared)})
    write_atomically(out / WEIGHTS, lambda file: file.write(content))
    if folder.history_path.exists():
        shutil.copy(folder.history_path, out)
    if metrics := folder.read_metrics():
        RunFolder(out).add_metrics(metrics)
    # Last: without it, the folder is no run.
    RunFolder(out).write_config(_config(folder, config))
    return out


def _config(folder: RunFolder, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what is of this machine alone."""
    kind = type(stored_story(config, folder.config_path))
    kept = {**config, "story": f"{kind.__module__}:{kind.__qualname__}", "data_dir": None}
    if origin := config.get("model_from"):
        kept["model_from"] = {**origin, "run": Path(origin["run"]).name}
    return kept


def _is_of_model(name: str) -> bool:
    return name.startswith(PREFIX)


def _distinct(
    parameters: dict[str, Tensor], *, half: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, by its name in the model if it has one, and the names of the others."""
    kept: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    names: dict[tuple[int, torch.Size], str] = {}
    for name, value in sorted(parameters.items(), key=lambda named: not _is_of_model(named[0])):
        key = value.data_ptr(), value.shape
        if value.numel() and key in names:
            shared[name] = names[key]
            continue
        names[key] = name
        kept[name] = (value.half() if half and value.is_floating_point() else value).contiguous()
    return kept, shared
