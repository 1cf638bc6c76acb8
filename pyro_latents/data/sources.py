"""The data sets by name.

>>> splits = load("digits", validation=100)
>>> len(splits.validation), splits.shape
(100, torch.Size([1, 28, 28]))
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyro_latents.data import affnist, digits, idx, manifolds, street, svhn
from pyro_latents.data.examples import Splits
from pyro_latents.data.folders import data_folder
from pyro_latents.data.own import (
    IN_MEMORY,
    Parts,
    in_memory,
    own_file,
    own_shape,
    own_splits,
    read_own,
)
from pyro_latents.data.points import as_tensor, point_shape
from pyro_latents.data.rotated import rotated_splits
from pyro_latents.errors import UserError
from pyro_latents.text import did_you_mean


@dataclass(frozen=True)
class Request:
    """What a source is asked for; each takes what concerns it."""

    data_dir: Path
    validation: int
    seed: int
    device: torch.device


@dataclass(frozen=True)
class Source:
    """A data set: the shape of a point, how many usually validate, what reads or makes it."""

    shape: tuple[int, ...]
    validation: int
    read: Callable[[Request], Splits]


def _mnist(r: Request) -> Splits:
    return idx.idx_images("MNIST", r.data_dir, r.validation)


def _rotated(upright: Callable[[Request], Splits]) -> Callable[[Request], Splits]:
    return lambda r: rotated_splits(upright(r).to(r.device), seed=r.seed)


SOURCES = {
    "digits": Source(digits.SHAPE, 180, lambda r: digits.digits(r.validation)),
    "rotated-digits": Source(digits.SHAPE, 180, _rotated(lambda r: digits.digits(r.validation))),
    "mnist": Source(idx.SHAPE, 10_000, _mnist),
    "fashion-mnist": Source(
        idx.SHAPE, 10_000, lambda r: idx.idx_images("FashionMNIST", r.data_dir, r.validation)
    ),
    "rotated-mnist": Source(idx.SHAPE, 10_000, _rotated(_mnist)),
    "affnist": Source(
        affnist.SHAPE,
        10_000,
        lambda r: affnist.affnist(r.data_dir, r.validation, seed=r.seed, device=r.device),
    ),
    "street-mnist": Source(
        street.SHAPE,
        10_000,
        lambda r: street.street_splits(_mnist(r).to(r.device), seed=r.seed),
    ),
    "svhn": Source(svhn.SHAPE, 3_257, lambda r: svhn.svhn(r.data_dir, r.validation)),
    "swiss-roll": Source(
        manifolds.SHAPE, 500, lambda r: manifolds.swiss_roll(r.validation, seed=r.seed)
    ),
    "circles": Source(
        manifolds.SHAPE, 200, lambda r: manifolds.circles(r.validation, seed=r.seed)
    ),
}
SHAPES = {name: source.shape for name, source in SOURCES.items()}


def source_of(name: str) -> Source:
    """Return the data set of that name.

    Raises:
        UserError: if there is none; the message has the near names.
    """
    if name not in SOURCES:
        # Paths that exist do not come here.
        what = "file or folder" if Path(name).suffix or len(Path(name).parts) > 1 else "data set"
        raise UserError(
            f"there is no {what} {name!r}: {did_you_mean(name, SOURCES)} Data of your own are a "
            ".npy or .npz file or a folder of images, by its path."
        )
    return SOURCES[name]


def named(data: Any) -> tuple[str, tuple[int, ...]]:
    """Return what data of one's own are called, and the shape of a point.

    Args:
        data: Their path, or arrays as of `own.in_memory`.

    Raises:
        UserError: if they are not there, or are no data.
    """
    if not isinstance(data, str | Path):
        x, _ = in_memory(data)["train"]
        return IN_MEMORY, point_shape(tuple(as_tensor(x).shape), "x")
    path = Path(data).expanduser()
    if not str(data) or not path.exists():
        source_of(str(data))
    path = path.resolve()
    return str(path), own_shape(path)


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    validation: int | None = None,
    limit_train: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    arrays: Any = None,
) -> Splits:
    """Load a data set; nothing is ever downloaded.

    Args:
        name: One of `SOURCES`, or the path of data of one's own.
        data_dir: The root folder in torchvision's layout; None for the environment's
            ``PYRO_LATENTS_DATA``, or else ``./data``.
        validation: The size of the validation set, taken from the end of the training data; 0 to
            train on all of them, None for the usual size.
        limit_train: Keep this many of the training examples, the first ones; None for all.
        seed: Of what is drawn to make the data: manifolds, angles, affine maps. The same seed
            gives the same data on every device. It is not the seed of a training run.
        device: Where the tensors are to be.
        arrays: Data in memory, as of `own.in_memory`, in the place of what the name says.

    Raises:
        UserError: if the name is unknown, files are missing or broken, or a number is out of
            range.
    """
    if limit_train is not None and not limit_train >= 1:
        raise UserError(f"--limit-train must be at least 1; got {limit_train}.")
    source = _of_own(name, arrays) if arrays is not None or _is_own(name) else source_of(name)
    validation = source.validation if validation is None else validation
    request = Request(data_folder(data_dir), validation, seed, torch.device(device))
    splits = source.read(request)
    if limit_train is not None:
        # A copy, so that the memory of the others is freed.
        kept = splits.train.take(torch.arange(min(limit_train, len(splits.train))))
        splits = replace(splits, train=kept)
    return splits.to(device)


def _is_own(name: str) -> bool:
    return name not in SOURCES and (name == IN_MEMORY or Path(name).is_absolute())


def _of_own(name: str, arrays: Any) -> Source:
    def read(r: Request) -> Splits:
        parts: Parts
        if arrays is not None:
            parts = in_memory(arrays)
        elif name == IN_MEMORY:
            raise UserError(
                "the data were arrays in memory, which are kept nowhere: give them again with "
                "zoo.open_run(..., data=...)."
            )
        else:
            parts = read_own(own_file(name, r.data_dir))
        return own_splits(parts, r.validation, Path(name).name)

    return Source((), 10_000, read)
