"""Where the files of a data set are looked for, and what is said of missing and broken ones."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError

VARIABLE = "PYRO_LATENTS_DATA"
DEFAULT = "data"


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The root folder of the data sets, laid out as torchvision does.

    It is ``data_dir``, or else the environment's ``PYRO_LATENTS_DATA``, or else ``./data``.
    """
    return Path(data_dir or os.environ.get(VARIABLE) or DEFAULT).expanduser()


def not_found(title: str, missing: Path, data_dir: Path, remedy: str) -> UserError:
    """The error for data that are not there; the remedy, an imperative, says how they are got."""
    return UserError(
        f"{title} not found in {data_dir}: there is no {missing}. Name its folder with --data-dir "
        f"or {VARIABLE}, take other data by --data, or {remedy}"
    )


def torchvision_command(names: str, statements: str) -> str:
    """A shell command that lets torchvision download data sets."""
    return f'python -c "from torchvision.datasets import {names}; {statements}"'


def held_out(examples: Examples, validation: int, title: str) -> tuple[Examples, Examples]:
    """Set the last ``validation`` of the training examples apart.

    Raises:
        UserError: if the number is negative or leaves nothing to train on.
    """
    total = len(examples)
    if not 0 <= validation < total:
        raise UserError(
            f"--validation must be in 0..{total - 1} for {title}, which has {total} training "
            f"examples; got {validation}."
        )
    left = total - validation
    return examples.take(slice(left)), examples.take(slice(left, None))


@contextmanager
def readable(path: Path, content: str, remedy: str) -> Iterator[None]:
    """Say in one line that a MATLAB file with some content cannot be read, and how to get it."""
    # A damaged file makes the MATLAB reader fail in as many ways as there are kinds of damage.
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{path} cannot be read as a MATLAB file with {content} ({reason}). {remedy}"
        ) from error


def check_labels(y: Tensor, num_classes: int, path: Path, remedy: str) -> None:
    """Raise a UserError if a label of a file is not one of its data set."""
    low, high = int(y.min()), int(y.max())
    if not 0 <= low <= high < num_classes:
        raise UserError(
            f"{path} has labels in {low}..{high}, outside 0..{num_classes - 1}. {remedy}"
        )
