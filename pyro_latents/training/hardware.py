"""The devices of a training, by Lightning Fabric, and its processes: one a device, its ranks."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import distributed

from pyro_latents.errors import UserError
from pyro_latents.training.options import FitOptions

# From torch's message on parameters without a gradient.
UNUSED_PARAMETERS = "not used in producing the loss"
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


def build_fabric(options: FitOptions, *, all_parameters: bool, folder: Path) -> Fabric:
    """Return the devices, which are not used before they are launched.

    Args:
        options: On what to train.
        all_parameters: Whether every step has a gradient for each parameter.
        folder: Where TensorBoard's event files go.

    Raises:
        UserError: if there are no such devices, Lightning does not know a name, or TensorBoard's
            package is missing.
    """
    names = ("accelerator", "devices", "nodes", "precision")
    given = " ".join(f"--{name} {getattr(options, name)}" for name in names)
    loggers: list[Any] = [_event_files(folder)] if options.tensorboard else []
    try:
        with quiet():
            fabric = Fabric(
                accelerator=options.accelerator,
                devices=options.devices,
                num_nodes=options.nodes,
                precision=cast(Any, options.precision),
                strategy=_strategy(options.ranks, all_parameters),
                loggers=loggers,
            )
            environment = getattr(fabric.strategy, "cluster_environment", None)
            if environment is not None:
                # What a scheduler started is seen by Lightning when it launches: too late.
                environment.validate_settings(options.devices, options.nodes)
    except Exception as error:  # Lightning raises many kinds
        raise UserError(f"cannot train with {given}: {' '.join(str(error).split())}") from error
    if options.nodes > 1 and not getattr(environment, "creates_processes_externally", False):
        raise UserError(
            f"--nodes {options.nodes} needs a process for each device on every machine: start "
            "them with torchrun or srun."
        )
    return fabric


def _event_files(folder: Path) -> TensorBoardLogger:
    try:
        return TensorBoardLogger(folder, "tensorboard", "")
    except ModuleNotFoundError as error:
        raise UserError(
            "--tensorboard needs a package that is not there: pip install tensorboard."
        ) from error


def is_first_rank(ranks: int) -> bool:
    """Whether this process writes the run folder: it is the only one, or the first of several.

    Args:
        ranks: The number of processes. A single one is the first, whatever its place among
            others that a cluster's scheduler has started.
    """
    return ranks == 1 or getattr(rank_zero_only, "rank", 0) == 0


def together(compute: Callable[[], T], device: torch.device) -> T:
    """Compute something on every rank; if one of them fails, all do, with the same message.

    A rank that failed alone would leave the others waiting for its gradient.

    Args:
        compute: What this rank computes.
        device: Where the ranks can tell each other of a failure.

    Raises:
        UserError: that of the first rank which raised one.
    """
    mine: UserError | None = None
    try:
        result = compute()
    except UserError as error:
        mine = error
    failures = torch.tensor(float(mine is not None), device=device)
    distributed.all_reduce(failures)
    if not failures:
        return result
    messages: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(messages, mine and str(mine))
    raise UserError(next(filter(None, messages))) from mine


@contextmanager
def one_voice(fabric: Fabric, first: bool) -> Iterator[None]:
    """Let the first rank say what all have to say, here and in the rest of the user's program.

    The other ranks on this machine end when the first one does, however it ends.
    """
    if not first:
        _end_with_parent()
    try:
        with _gradients_of_all(), _half_precision(fabric):
            yield
    except BaseException as error:
        if not first:
            # The first rank says it, or its end is why this one cannot go on.
            _leave_quietly(error)
        others = getattr(fabric.strategy.launcher, "procs", [])
        alone = isinstance(error, RuntimeError) and any(map(_has_ended, others))
        _end_others(others)
        if alone:
            raise UserError(
                "the process of another device has ended, by the system if memory was short: the "
                "same command with --resume goes on where it was saved."
            ) from error
        raise
    if not first:
        sys.stdout = open(os.devnull, "w")


def _has_ended(process: Popen) -> bool:
    """Whether a process ended in failure, now or within the second that its end may take."""
    try:
        return process.wait(1) != 0
    except TimeoutExpired:
        return False


def _end_others(processes: list[Popen]) -> None:
    """End the processes of the other ranks.

    Lightning watches the same list for a rank that ended before its time, and would kill this
    process for it: it must not see them end.
    """
    ended = processes.copy()
    processes.clear()
    for process in ended:
        process.kill()
        process.wait()


def _leave_quietly(error: BaseException) -> None:
    # Whoever asks this process to end asks the first one too.
    told = isinstance(error, UserError) or not isinstance(error, Exception)
    if told or "onnection" in str(error):
        sys.stderr = open(os.devnull, "w")
        sys.exit(1)


def _end_with_parent() -> None:
    """Have the system kill this process when the one that started it ends."""
    if sys.platform.startswith("linux") and "TORCHELASTIC_RUN_ID" not in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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


@contextmanager
def _half_precision(fabric: Fabric) -> Iterator[None]:
    """Say so where a step needs what there is for single precision alone."""
    name = fabric.strategy.precision.precision
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if name in ("32-true", "64-true") or isinstance(error, UserError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"this recipe cannot be trained with --precision {name}: give 32-true ({reason})."
        ) from error


def _strategy(ranks: int, all_parameters: bool) -> str | DDPStrategy:
    if ranks == 1:
        return "auto"
    # Lightning starts the user's program again for each further rank; a notebook it must fork.
    start: Any = "fork" if hasattr(sys, "ps1") else "popen"
    return DDPStrategy(start_method=start, find_unused_parameters=not all_parameters)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep notices about hardware and unused features from the user's screen."""
    names = "lightning_fabric", "lightning_fabric.utilities.distributed"
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric")
            # Pyro warns of a loss that is not finite; the loop says where it came from.
            warnings.filterwarnings("ignore", message="Encountered", module="pyro")
            # Of convolutions on several devices, whose gradients have another memory layout.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
