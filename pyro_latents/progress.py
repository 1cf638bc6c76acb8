"""Bars on the error stream, on a terminal alone, for work that does not depend on them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


class Lenient(io.TextIOBase):
    """The error stream, whose failures are passed over: what cannot be shown is left out."""

    def write(self, text: str) -> int:
        """Write to the stream that there is now."""
        # AttributeError: a process that was started without the stream has None in its place.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush it."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def fileno(self) -> int:
        """Return its number, by which a bar learns how wide the terminal is."""
        return sys.stderr.fileno()


def watched(
    work: Iterable[T], description: str, *, total: int | None = None, shown: bool = True
) -> Iterable[T]:
    """Return the same work, with a bar that grows with it.

    Args:
        work: What is gone through.
        description: What the bar says.
        total: How much there is, None to ask the work for its length.
        shown: Whether to show anything.
    """
    return bar(work, description, total=total) if shown and on_terminal() else work


def bar(
    work: Iterable[T] | None = None, description: str | None = None, **options: object
) -> tqdm:
    """Return a bar of tqdm's, whose failures do not end the work."""
    return tqdm(work, description, file=Lenient(), dynamic_ncols=True, **options)


def on_terminal() -> bool:
    """Whether someone watches the error stream; a notebook has bars of its own."""
    with contextlib.suppress(ValueError):
        return hasattr(sys, "ps1") or (sys.stderr is not None and sys.stderr.isatty())
    return False
