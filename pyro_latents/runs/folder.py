"""The folder that a training writes."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Any

import torch
import yaml

from pyro_latents.errors import UserError
from pyro_latents.files import write_json, write_text
from pyro_latents.training.checkpoint import BEST, CHECKPOINT, HISTORY, read_checkpoint

REFERENCE = "reference.nc"
# What `pyro-latents` measures and draws of a run, and what is of no use once it is trained on.
RESULTS = ("metrics.json", "figures", "checks", "report.html", REFERENCE)
# Before the name of other data than those of the training, the folder for results on these.
ON = "on-"
# What is written beside its place, and renamed.
FILES = ("config.yaml", CHECKPOINT, BEST, HISTORY, "metrics.json")
# What an export has in the place of a checkpoint.
WEIGHTS = "model.safetensors"
# What both call the parameters of the model.
PREFIX = "model."
# In the metadata of the export: names, each with that of another which has the same numbers.
SHARED = "shared"
# What a configuration has at least, and of which kinds.
CONFIG: dict[str, tuple[type, ...]] = {
    "recipe": (str,),
    "guide": (str,),
    "seed": (int,),
    "data_dir": (str, NoneType),
    "limit_train": (int, NoneType),
    "settings": (dict,),
    "training": (dict,),
}


class RunFolder:
    """Where a run keeps its configuration, checkpoint, history and metrics.

    What cannot be read, made or written raises a `UserError`.

    Attributes:
        data: Other data than those of the training, where the results are on these.
    """

    data: str | None = None

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.yaml"
        self.checkpoint_path = self.path / CHECKPOINT
        self.best_path = self.path / BEST
        self.history_path = self.path / HISTORY
        self.metrics_path = self.path / "metrics.json"
        self.figures_path = self.path / "figures"
        self.reference_path = self.path / REFERENCE

    def of_training(self) -> RunFolder:
        """The run, with its results on the data of its training."""
        return self

    def is_started(self) -> bool:
        """Whether a training has left parameters here that another one would overwrite."""
        return self.checkpoint_path.exists() or self.best_path.exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder where there is none, and hold it against other processes.

        What a training has made that fails before its first epoch is done is removed again.
        """
        with self._writing():
            if self.path.is_symlink() and not self.path.exists():
                raise UserError(f"{self.path} is a link to nothing: give another --out.")
            made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
        with self._locked():
            try:
                yield
            except BaseException:
                if not self.is_started() and not self.history_path.exists():
                    with suppress(OSError):
                        self._remove(made)
                raise

    def begin(self, config: dict[str, Any]) -> None:
        """Write the configuration of a new run, where there is none and nothing else.

        What failed before is begun anew.
        """
        if self.is_started():
            raise UserError(
                f"{self.path} holds a run already: add --resume to go on with it, "
                "or give another --out."
            )
        if not self._is_ours():
            raise UserError(f"{self.path} exists and is not a run: give another --out.")
        with self._writing():
            self.clean()
            self.history_path.unlink(missing_ok=True)
            self.write_config(config)

    def go_on(self, config: dict[str, Any]) -> None:
        """Write the configuration of a run that is trained on, and put aside what was measured."""
        aside = self.path / f"at-step-{self.step()}"
        results = [self.path / name for name in RESULTS if (self.path / name).exists()]
        for path in [*results, *self.path.glob(f"{ON}*")]:
            aside.mkdir(exist_ok=True)
            path.rename(aside / path.name)
        self.write_config(config)

    def clean(self) -> None:
        """Remove what a killed process left of files that it was writing."""
        for path in filter(_is_half_written, self.path.iterdir()):
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it with the process."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise UserError(
                f"{self.path} is being trained by another process: wait for it, or give another "
                "--out."
            ) from error
        finally:
            os.close(handle)

    def read_config(self) -> dict[str, Any]:
        """Return the configuration of the run."""
        if self.path.is_file():
            raise UserError(f"{self.path} is a file, not the folder of a run.")
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not there: train a recipe with --out {self.path}.")
        if not self.config_path.is_file():
            raise UserError(
                f"{self.path} is not a run: it has no {self.config_path.name}. "
                "Give a folder that `pyro-latents train` wrote."
            )
        try:
            config = yaml.safe_load(self.config_path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{self.config_path} is damaged; train the run anew.") from error
        wrong = _wrong_in(config)
        if wrong:
            raise UserError(f"{self.config_path} {wrong}; train the run anew.")
        return config

    def read_parameters(self) -> dict[str, torch.Tensor]:
        """Return the trained parameters: the best ones with early stopping, else the latest."""
        path, parameters = self._stored()
        for name, value in parameters.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise UserError(f"{path} has a {name} that is not finite; train the run anew.")
        return parameters

    def _stored(self) -> tuple[Path, dict[str, torch.Tensor]]:
        """The parameters, and the file that has them."""
        weights = self.path / WEIGHTS
        if weights.exists():
            return weights, read_weights(weights)
        path = self.best_path if self.best_path.exists() else self.checkpoint_path
        return path, read_checkpoint(path)["parameters"]

    def step(self) -> int:
        """Return the step that the run is at, zero before its first checkpoint."""
        if not self.checkpoint_path.exists():
            return 0
        return read_checkpoint(self.checkpoint_path)["progress"]["step"]

    def read_history(self) -> list[dict[str, str]]:
        """Return the rows of the history, of which there is one at least."""
        try:
            with self.history_path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                for name in ("epoch", "step", "loss", "seconds"):
                    float(row[name])
        except (OSError, ValueError, KeyError, TypeError):
            rows = []
        if not rows:
            raise UserError(
                f"{self.history_path} is missing or damaged: train the run with --resume."
            )
        return rows

    def read_metrics(self) -> dict[str, float]:
        """Return what was measured of the run, nothing before `evaluate`."""
        if not self.metrics_path.exists():
            return {}
        try:
            metrics = json.loads(self.metrics_path.read_text())
        except ValueError as error:
            raise UserError(
                f"{self.metrics_path} is damaged: delete it and evaluate the run again."
            ) from error
        if not isinstance(metrics, dict):
            raise UserError(f"{self.metrics_path} holds no metrics: delete it.")
        return metrics

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Add measurements to those of the run."""
        write_json(self.metrics_path, {**self.read_metrics(), **metrics})

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration, in place of any there was."""
        write_text(self.config_path, yaml.safe_dump(config, sort_keys=False))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}): give another --out."
            ) from error

    def _is_ours(self) -> bool:
        """Whether the folder is empty, or has what a training leaves that did not get far."""
        own = (self.config_path.name, HISTORY, "tensorboard")
        return all(path.name in own or _is_half_written(path) for path in self.path.iterdir())

    def _remove(self, made: list[Path]) -> None:
        """Remove what a failed start has written, and the folders that it has made."""
        if not self._is_ours():
            return
        self.config_path.unlink(missing_ok=True)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        for path in made:
            path.rmdir()


class ResultsApart(RunFolder):
    """A run that is only read, and a folder for what is measured and drawn of it.

    Args:
        run: The run.
        results: The folder, which is made once there are results.
    """

    def __init__(self, run: RunFolder, results: Path) -> None:
        super().__init__(results)
        self.run = run
        self.config_path = run.config_path
        self.history_path = run.history_path

    def read_config(self) -> dict[str, Any]:
        """Return the configuration of the run."""
        return self.run.read_config()

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Add measurements to those in the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.metrics_path, {**RunFolder.read_metrics(self), **metrics})

    def _stored(self) -> tuple[Path, dict[str, torch.Tensor]]:
        return self.run._stored()


def _is_half_written(path: Path) -> bool:
    """Whether a process was killed that wrote one of a run's files."""
    return path.name.startswith(tuple(f".{name}." for name in FILES))


def read_weights(
    path: Path, beside: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Return the parameters that `runs.export` has written, and those of another file beside."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = {**(beside or {}), **{name: file.get_tensor(name) for name in file.keys()}}
            shared = json.loads((file.metadata() or {}).get(SHARED, "{}"))
        return found | {name: found[same] for name, same in shared.items()}
    except Exception as error:  # a damaged file fails in as many ways as there are damages
        raise UserError(f"{path} is damaged; export the run anew.") from error


def _wrong_in(config: Any) -> str | None:
    """What is wrong in a configuration."""
    if not isinstance(config, dict) or "recipe" not in config:
        return "names no recipe"
    for key, kinds in CONFIG.items():
        if key not in config:
            return f"has no {key}"
        if not isinstance(config[key], kinds):
            return f"has a {key} that makes no sense, {config[key]!r}"
    return None
