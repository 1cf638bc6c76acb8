"""The data sets by name.

>>> splits = load("digits", validation=100)
>>> len(splits.validation), splits.shape
(100, torch.Size([1, 28, 28]))
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pyro_latents.data import affnist, digits, idx, manifolds, svhn
from pyro_latents.data.examples import Splits
from pyro_latents.data.folders import data_folder
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
        raise UserError(f"there is no data set {name!r}: {did_you_mean(name, SOURCES)}")
    return SOURCES[name]


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    validation: int | None = None,
    limit_train: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Splits:
    """Load a data set; nothing is ever downloaded.

    Args:
        name: One of `SOURCES`.
        data_dir: The root folder in torchvision's layout; None for the environment's
            ``PYRO_LATENTS_DATA``, or else ``./data``.
        validation: The size of the validation set, taken from the end of the training data; 0 to
            train on all of them, None for the usual size.
        limit_train: Keep this many of the training examples, the first ones; None for all.
        seed: Of what is drawn to make the data: manifolds, angles, affine maps. The same seed
            gives the same data on every device. It is not the seed of a training run.
        device: Where the tensors are to be.

    Raises:
        UserError: if the name is unknown, files are missing or broken, or a number is out of
            range.
    """
    if limit_train is not None and not limit_train >= 1:
        raise UserError(f"--limit-train must be at least 1; got {limit_train}.")
    source = source_of(name)
    validation = source.validation if validation is None else validation
    request = Request(data_folder(data_dir), validation, seed, torch.device(device))
    splits = source.read(request)
    if limit_train is not None:
        # A copy, so that the memory of the others is freed.
        kept = splits.train.take(torch.arange(min(limit_train, len(splits.train))))
        splits = replace(splits, train=kept)
    return splits.to(device)
