"""From a module and its batches to a trained run folder, by Lightning's trainer."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.progress import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from pyro_latents.data.batches import Batches
from pyro_latents.errors import UserError
from pyro_latents.files import write_atomically
from pyro_latents.training.history import History, batches_done
from pyro_latents.training.options import FitOptions
from pyro_latents.training.ranks import is_first_rank, silence
from pyro_latents.training.run_folder import RunFolder, read_checkpoint, read_values

# Steps between two checkpoints at least, so that saving stays a small part of short epochs.
MIN_STEPS_BETWEEN_CHECKPOINTS = 100

# From Lightning's message on parameters without a gradient.
UNUSED_PARAMETERS = "not used in producing the loss"

# Builds the batches of "train" or "validation" on a device, for one rank of several.
BatchesFactory = Callable[[str, torch.device, int, int], Batches | None]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are renamed into place, and read without unpickling arbitrary objects."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint beside its place and rename it."""
        write_atomically(path, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, or the parameters alone; a damaged file is a `UserError`."""
        return read_values(Path(path), map_location)


class _Batches(Callback):
    """Hands each epoch its batches, from the middle on where a run stopped there."""

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        # Lightning begins a new epoch where a run stopped within one; the data do not.
        batches = trainer.train_dataloader
        epoch, start = divmod(batches_done(trainer), len(batches))
        batches.set_epoch(epoch, start)


class _LastCheckpoint(Callback):
    """Saves the end of the training, in the processes that train."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.save_checkpoint(self._path)


class _ProgressBar(TQDMProgressBar):
    """Lightning's bar with the loss, read rarely since reading it waits for the device."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=20)
        self._loss: float | None = None

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown if self._loss is None else {"loss": f"{self._loss:.2f}", **shown}

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (batch_idx + 1) % self.refresh_rate == 0:
            self._loss = outputs["loss"].item()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class _Data(lightning.LightningDataModule):
    """Builds the batches where Lightning has placed the model."""

    def __init__(self, build: BatchesFactory) -> None:
        super().__init__()
        self._build = build

    def train_dataloader(self) -> Batches:
        batches = self._batches("train")
        assert batches is not None
        return batches

    def val_dataloader(self) -> Batches | list:
        return self._batches("validation") or []

    def _batches(self, split: str) -> Batches | None:
        trainer = self.trainer
        assert trainer is not None
        device = trainer.strategy.root_device
        return self._build(split, device, trainer.global_rank, trainer.world_size)


def fit(
    module: lightning.LightningModule,
    build_batches: BatchesFactory,
    folder: RunFolder,
    options: FitOptions,
    *,
    resume: bool = False,
    gradient_clip: float = 0.0,
    patience: int = 0,
) -> RunFolder:
    """Train a module and leave its checkpoint and history in the folder.

    On several devices, each rank calls this; the first one writes, to its own folder.

    Args:
        module: The Lightning module, such as `SVIModule`.
        build_batches: Builds the batches of a split on a device, for a rank.
        folder: The run folder, with its configuration written.
        options: How long and on what.
        resume: Whether to go on from the checkpoint in the folder.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        patience: Epochs without a better validation loss before training stops; 0 for never.

    Returns:
        The folder that was written.

    Raises:
        UserError: if a loss is not finite, or a checkpoint to resume from is damaged. Of several
            ranks only the first raises it; the others leave.
    """
    checkpoint = folder.checkpoint_path if resume and folder.checkpoint_path.exists() else None
    if checkpoint is not None:
        read_checkpoint(checkpoint)
    steps_per_epoch = len(build_batches("train", torch.device("cpu"), 0, 1))
    with _quiet():
        trainer = lightning.Trainer(
            **_hardware(options),
            strategy=_strategy(options.ranks, module.steps_use_all_parameters),
            max_epochs=options.epochs if options.steps is None else -1,
            max_steps=options.steps or -1,
            gradient_clip_val=gradient_clip or None,
            callbacks=_callbacks(folder, options, steps_per_epoch, patience),
            logger=TensorBoardLogger(folder.path, "tensorboard", "")
            if options.tensorboard
            else False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=folder.path,
            num_sanity_val_steps=0,
            log_every_n_steps=50,
            enable_model_summary=False,
            enable_progress_bar=options.progress,
            use_distributed_sampler=False,
        )
        with _one_voice(is_first_rank(options.ranks)):
            trainer.fit(module, datamodule=_Data(build_batches), ckpt_path=checkpoint)
            return RunFolder(trainer.strategy.broadcast(folder.path))


def check_hardware(options: FitOptions) -> None:
    """See that there are such devices.

    Raises:
        UserError: if not, or if Lightning does not know a name.
    """
    try:
        with _quiet():
            trainer = lightning.Trainer(
                **_hardware(options),
                strategy=_strategy(options.ranks, all_parameters=True),
                logger=False,
                enable_checkpointing=False,
            )
    except (MisconfigurationException, ValueError) as error:
        names = ("accelerator", "devices", "nodes", "precision")
        given = " ".join(f"--{name} {getattr(options, name)}" for name in names)
        raise UserError(f"cannot train with {given}: {' '.join(str(error).split())}") from error
    if options.nodes > 1:
        assert isinstance(trainer.strategy, DDPStrategy)
        environment = trainer.strategy.cluster_environment
        if environment is None or not environment.creates_processes_externally:
            raise UserError(
                f"--nodes {options.nodes} needs a process for each device on every machine: start "
                "them with torchrun or srun."
            )


def _hardware(options: FitOptions) -> dict[str, Any]:
    names = ("accelerator", "devices", "precision")
    return {"num_nodes": options.nodes} | {name: getattr(options, name) for name in names}


@contextmanager
def _one_voice(first: bool) -> Iterator[None]:
    """Let the first rank say what all have to say, here and in the rest of the user's program."""
    try:
        with _gradients_of_all():
            yield
    except UserError:
        if first:
            raise
        sys.exit()
    if not first:
        silence()


@contextmanager
def _gradients_of_all() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if UNUSED_PARAMETERS not in str(error):
            raise
        raise UserError(
            "a step leaves parameters of the model or the guide without a gradient, which several "
            "devices would wait for: train with --devices 1."
        ) from error


def _strategy(ranks: int, all_parameters: bool) -> str:
    if ranks == 1:
        return "auto"
    # Lightning starts the user's program again for each further rank; a notebook it must fork.
    kind = "ddp_notebook" if hasattr(sys, "ps1") else "ddp"
    return f"{kind}_find_unused_parameters_{str(not all_parameters).lower()}"


def _callbacks(
    folder: RunFolder, options: FitOptions, steps_per_epoch: int, patience: int
) -> list[Callback]:
    callbacks: list[Callback] = [
        _Batches(),
        History(folder.history_path),
        ModelCheckpoint(
            folder.path,
            filename=folder.checkpoint_path.stem,
            every_n_epochs=-(-MIN_STEPS_BETWEEN_CHECKPOINTS // steps_per_epoch),
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        _LastCheckpoint(folder.checkpoint_path),
    ]
    if options.progress:
        callbacks.append(_ProgressBar())
    if patience:
        callbacks += [
            EarlyStopping("validation_loss", patience=patience),
            ModelCheckpoint(
                folder.path,
                filename=folder.best_path.stem,
                monitor="validation_loss",
                enable_version_counter=False,
            ),
        ]
    return callbacks


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notices about hardware and unused features from the user's screen."""
    names = "lightning.pytorch", "lightning.fabric.utilities.distributed"
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            # Pyro warns of a loss that is not finite; `SVIModule` says where it came from.
            warnings.filterwarnings("ignore", message="Encountered", module="pyro")
            # Of convolutions on several devices, whose gradients have another memory layout.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
