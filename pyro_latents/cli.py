"""The command line, `pyro-latents`."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from signal import SIGINT, SIGTERM
from types import FrameType
from typing import NoReturn

import pyro_latents
from pyro_latents.commands import COMMANDS, Parser
from pyro_latents.errors import UserError
from pyro_latents.memory import keep_freed_memory
from pyro_latents.text import aligned, did_you_mean

# What is said, and the shell's status: 128 and the signal's number.
ENDS: dict[int, tuple[str, int]] = {
    SIGINT: ("stopped.", 128 + SIGINT),
    SIGTERM: ("terminated.", 128 + SIGTERM),
}
MISTAKE = 2
# Whose versions are told with our own.
PARTS = (
    "pyro-ppl",
    "torch",
    "torchvision",
    "lightning-fabric",
    "arviz",
    "zuko",
    "numba",
    "numpy",
    "scipy",
    "scikit-learn",
)


class Terminated(BaseException):
    """The process was asked to end: what is written is whole, and nothing more is written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 for a mistake of the user's."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    keep_freed_memory()
    # As under `python -m`, a guide of one's own may lie in the folder that one is in.
    if "" not in sys.path:
        sys.path.append("")
    try:
        with _ends_when_asked():
            _run(arguments)
            sys.stdout.flush()
            return 0
    except UserError as error:
        return _say(f"error: {error}", MISTAKE)
    except KeyboardInterrupt:
        return _say_for_all(*ENDS[SIGINT])
    except Terminated:
        return _say_for_all(*ENDS[SIGTERM])
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        return 0
    except OSError as error:
        what = f"{error.filename}" if error.filename else "the output cannot be written"
        return _say(f"error: {what}: {error.strerror or error}.", MISTAKE)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            raise
        return _say("error: not enough memory: give smaller sizes or batches.", MISTAKE)
    finally:
        _drop_output()


def _say(text: str, status: int) -> int:
    with suppress(OSError, ValueError):
        print(f"pyro-latents: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return status


def _say_for_all(text: str, status: int) -> int:
    """Say something unless this is one of several processes on a machine, and not the first."""
    return status if os.environ.get("LOCAL_RANK", "0") != "0" else _say(text, status)


def _open_streams() -> None:
    """Open what the process was started without; else the next file would be in its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w"))
        if isinstance(stream := getattr(sys, name), TextIOWrapper):
            # A letter that a terminal does not have is no reason to end.
            stream.reconfigure(errors="replace")


def _drop_output() -> None:
    """Let go of what an output does not take any more; Python would complain of it at the end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextmanager
def _ends_when_asked() -> Iterator[None]:
    """Turn signals into exceptions, so that files and processes are left in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {SIGTERM: signal.signal(SIGTERM, _end)}
    # In the background of a shell it is ignored.
    if signal.getsignal(SIGINT) is signal.default_int_handler:
        before[SIGINT] = signal.signal(SIGINT, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            # C++ that is being loaded would not let an exception through: it aborts.
            os._exit(_say_for_all(*ENDS[number]))
        frame = frame.f_back
    raise KeyboardInterrupt if number == SIGINT else Terminated


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        if not arguments:
            raise UserError("give a command.")
        return
    if arguments[0] == "--version":
        print(aligned(_versions()))
        return
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}: {did_you_mean(name, COMMANDS)}")
    command = COMMANDS[name]
    command.run(Parser(f"pyro-latents {name}", command.summary), rest)


def _versions() -> Iterator[tuple[str, str]]:
    """The version of this package, and of what its results depend on."""
    yield "pyro-latents", pyro_latents.__version__
    yield "python", platform.python_version()
    for package in PARTS:
        with suppress(PackageNotFoundError):
            yield package, version(package)


def _usage() -> str:
    commands = aligned([(f"  {name}", command.summary) for name, command in COMMANDS.items()])
    return "\n".join(
        [
            f"pyro-latents {pyro_latents.__version__}: {pyro_latents.__doc__}",
            "",
            "usage: pyro-latents COMMAND ...",
            "",
            commands,
            "",
            "`pyro-latents COMMAND --help` shows the options of a command.",
        ]
    )
