"""Files that are either whole or not there."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO

from pyro_latents.errors import UserError


def first_free(path: Path | str) -> Path:
    """Return the first of ``PATH``, ``PATH-2``, ``PATH-3``, ... that is not there."""
    names = chain([str(path)], (f"{path}-{number}" for number in count(2)))
    return next(free for free in map(Path, names) if not free.exists())


def write_atomically(path: Path | str, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file in a folder that exists, beside its place, and rename it: no one sees half.

    Args:
        path: The file's place.
        write: Writes the content to the open binary file that it is given.
    """
    path = Path(path)
    try:
        _write(path, write)
    except OSError as error:
        # Nobody knows the file that was to be renamed, and a full disk names none.
        error.filename, error.filename2 = str(path), None
        raise


def _write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # `mkstemp` makes private files; these are ordinary ones.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, indented for reading."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def check_writable(folder: Path, advice: str) -> None:
    """Raise a `UserError` with advice, before minutes are spent, if a folder cannot be written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{folder} cannot be written: {advice}.")
