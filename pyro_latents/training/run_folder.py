"""The folder that a training writes."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from pyro_latents.errors import UserError
from pyro_latents.files import write_json, write_text


class RunFolder:
    """Where a run keeps its configuration, checkpoint, history and metrics.

    Args:
        path: The folder.

    Attributes:
        config_path: What was trained and how, ``config.yaml``.
        checkpoint_path: The state at the end of the latest saved epoch, ``checkpoint.ckpt``.
        best_path: The state with the best validation loss, ``best.ckpt``, with early stopping.
        history_path: One row an epoch, ``history.csv``.
        metrics_path: What `evaluate` measured, ``metrics.json``.
        figures_path: The folder of pictures, ``figures``.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.yaml"
        self.checkpoint_path = self.path / "checkpoint.ckpt"
        self.best_path = self.path / "best.ckpt"
        self.history_path = self.path / "history.csv"
        self.metrics_path = self.path / "metrics.json"
        self.figures_path = self.path / "figures"

    def create(self, config: dict[str, Any]) -> None:
        """Make the folder of a new run.

        Raises:
            UserError: if there is a run in it already, or anything else.
        """
        if self.config_path.exists():
            raise UserError(
                f"{self.path} holds a run already: add --resume to go on with it, "
                "or give another --out."
            )
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UserError(f"{self.path} exists and is not a run: give another --out.")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration, in place of any there was."""
        write_text(self.config_path, yaml.safe_dump(config, sort_keys=False))

    def read_config(self) -> dict[str, Any]:
        """Return the configuration of the run.

        Raises:
            UserError: if the folder is missing, is not a run, or its configuration is damaged.
        """
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not there: train a recipe with --out {self.path}.")
        if not self.config_path.is_file():
            raise UserError(
                f"{self.path} is not a run: it has no {self.config_path.name}. "
                "Give a folder that `pyro-latents train` wrote."
            )
        try:
            config = yaml.safe_load(self.config_path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config_path} is damaged; train the run anew.") from error
        if not isinstance(config, dict) or "recipe" not in config:
            raise UserError(f"{self.config_path} names no recipe; train the run anew.")
        return config

    def read_weights(self) -> dict[str, torch.Tensor]:
        """Return the trained parameters: the best ones with early stopping, else the latest.

        Raises:
            UserError: if there is no checkpoint, or it cannot be read.
        """
        path = self.best_path if self.best_path.exists() else self.checkpoint_path
        return read_checkpoint(path)["state_dict"]

    def read_metrics(self) -> dict[str, float]:
        """Return what was measured of the run, nothing before `evaluate`."""
        return json.loads(self.metrics_path.read_text()) if self.metrics_path.exists() else {}

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Add measurements to those of the run."""
        write_json(self.metrics_path, {**self.read_metrics(), **metrics})


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors and plain values.

    Raises:
        UserError: if it is missing, truncated, or holds anything else.
    """
    if not path.is_file():
        raise UserError(
            f"{path.parent} has no {path.name} yet: the run stopped before its first epoch was "
            "saved. Train it with --resume."
        )
    checkpoint = read_values(path, map_location)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of this package; train the run anew.")
    return checkpoint


def read_values(path: Path, map_location: Any = "cpu") -> Any:
    """Read the tensors and plain values of a file of torch's.

    Raises:
        UserError: if it is truncated, or holds anything else.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(
            f"{path} is truncated or damaged and cannot be read; train the run anew."
        ) from error
