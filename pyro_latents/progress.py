"""Bars on the error stream, on a terminal alone, for work that does not depend on them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


class Lenient(io.TextIOBase):
    """The error stream that there is now; what cannot be shown on it is left out."""

    def write(self, text: str) -> int:
        """Write to the stream, if it takes it."""
        # AttributeError: a process that was started without the stream has None in its place.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush it, likewise."""
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def fileno(self) -> int:
        """Return its number, by which a bar learns how wide the terminal is."""
        return sys.stderr.fileno()


def watched(
    work: Iterable[T], description: str, *, total: int | None = None, shown: bool = True
) -> Iterable[T]:
    """Return the same work, with a bar that grows with it; of what has no length say the total."""
    return bar(work, description, total=total) if shown and on_terminal() else work


def bar(
    work: Iterable[T] | None = None, description: str | None = None, **options: object
) -> tqdm:
    """Return a bar of tqdm's, whose failures do not end the work."""
    return tqdm(work, description, file=Lenient(), dynamic_ncols=True, **options)


def on_terminal() -> bool:
    """Whether someone watches the error stream; a notebook has bars of its own."""
    with suppress(ValueError):
        return hasattr(sys, "ps1") or (sys.stderr is not None and sys.stderr.isatty())
    return False
