"""Where the files of a data set are looked for, and what is said of missing and broken ones."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from pyro_latents.errors import UserError

VARIABLE = "PYRO_LATENTS_DATA"
DEFAULT = "data"


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The root folder of the data sets, laid out as torchvision does.

    It is ``data_dir``, or else the environment's ``PYRO_LATENTS_DATA``, or else ``./data``.
    """
    return Path(data_dir or os.environ.get(VARIABLE) or DEFAULT).expanduser()


def not_found(title: str, missing: Path, data_dir: Path, remedy: str) -> UserError:
    """The error for data that are not there.

    Args:
        title: The data set's name in prose.
        missing: The first file or folder that was looked for in vain.
        data_dir: The root folder it should lie under.
        remedy: How the files are got, as an imperative.
    """
    return UserError(
        f"{title} not found in {data_dir}: there is no {missing}. Name its folder with --data-dir "
        f"or {VARIABLE}, or {remedy}"
    )


def torchvision_command(names: str, statements: str) -> str:
    """A shell command that lets torchvision download data sets."""
    return f'python -c "from torchvision.datasets import {names}; {statements}"'


def held_out(total: int, validation: int, title: str) -> int:
    """The number of training examples left when ``validation`` of ``total`` are set apart.

    Raises:
        UserError: if the number is negative or leaves nothing to train on.
    """
    if not 0 <= validation < total:
        raise UserError(
            f"--validation must be in 0..{total - 1} for {title}, which has {total} training "
            f"examples; got {validation}."
        )
    return total - validation


@contextmanager
def readable(path: Path, content: str, remedy: str) -> Iterator[None]:
    """Say in one line that a MATLAB file cannot be read.

    Args:
        path: The file.
        content: What it should hold.
        remedy: How a good one is got, as an imperative.
    """
    # A damaged file makes the MATLAB reader fail in as many ways as there are kinds of damage.
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{path} cannot be read as a MATLAB file with {content} ({reason}). {remedy}"
        ) from error


def check_labels(y: Tensor, num_classes: int, path: Path, remedy: str) -> None:
    """Check that the labels of a file are those of its data set.

    Raises:
        UserError: if one is not.
    """
    low, high = int(y.min()), int(y.max())
    if not 0 <= low <= high < num_classes:
        raise UserError(
            f"{path} has labels in {low}..{high}, outside 0..{num_classes - 1}. {remedy}"
        )
