"""MNIST and Fashion-MNIST: IDX files, read by torchvision and checked beforehand."""

import math
from pathlib import Path
from typing import Literal

from torch import Tensor

from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.folders import check_labels, held_out, not_found, torchvision_command
from pyro_latents.errors import UserError

SHAPE = (1, 28, 28)
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
NUM_CLASSES = 10
PARTS = ("train", "t10k")


def idx_images(
    title: Literal["MNIST", "FashionMNIST"], data_dir: Path, validation: int = 10_000
) -> Splits:
    """The images of MNIST or Fashion-MNIST under ``data_dir``, never downloaded.

    Args:
        title: The torchvision class.
        data_dir: The root folder; the files are in its ``MNIST/raw`` or ``FashionMNIST/raw``.
        validation: How many of the 60,000 training images, the last ones, are set apart:
            10,000 for the usual 50,000 to train on, 5,000 in Feige (2019), 0 to train on all.

    Raises:
        UserError: if a file is missing or broken, or the validation set leaves nothing.
    """
    for part in PARTS:
        _check(title, data_dir, part)
    train, test = (_read(title, data_dir, part) for part in PARTS)
    return Splits(*held_out(train, validation, title), test, NUM_CLASSES)


def as_images(pixels: Tensor) -> Tensor:
    """Bytes of any shape as float32 in [0, 1]."""
    return pixels.float().div_(255)


def _check(title: str, data_dir: Path, part: str) -> None:
    images, labels = _paths(title, data_dir, part)
    num_images, *sides = _sizes(title, data_dir, images, IMAGES_MAGIC, num_sizes=3)
    (num_labels,) = _sizes(title, data_dir, labels, LABELS_MAGIC, num_sizes=1)
    if sides != list(SHAPE[1:]):
        raise UserError(
            f"{images} holds images of {sides[0]}x{sides[1]} pixels, not 28x28. "
            f"Replace it with {title}'s own file."
        )
    if num_labels != num_images:
        raise UserError(
            f"{labels} has {num_labels} labels for the {num_images} images of {images.name}. "
            f"Replace both with the files of one download."
        )


def _read(title: str, data_dir: Path, part: str) -> Examples:
    import torchvision.datasets

    data = getattr(torchvision.datasets, title)(data_dir, train=part == "train", download=False)
    labels = _paths(title, data_dir, part)[1]
    check_labels(data.targets, NUM_CLASSES, labels, f"Replace it with {title}'s own file.")
    return Examples(as_images(data.data).unsqueeze(1), data.targets, provenance=title)


def _paths(title: str, data_dir: Path, part: str) -> tuple[Path, Path]:
    folder = data_dir / title / "raw"
    return folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"


def _sizes(title: str, data_dir: Path, path: Path, magic: int, *, num_sizes: int) -> list[int]:
    """The sizes that an IDX file of bytes announces, if the file is as long as they say."""
    if not path.is_file():
        download = f"{title}({str(data_dir)!r}, download=True)"
        raise not_found(title, path, data_dir, f"run: {torchvision_command(title, download)}")
    with path.open("rb") as file:
        header = file.read(4 * (1 + num_sizes))
    found, *sizes = (int.from_bytes(header[i : i + 4], "big") for i in range(0, 16, 4))
    if len(header) >= 4 and found != magic:
        raise UserError(
            f"{path} begins with {found}, not with the {magic} of an IDX file of this kind. "
            f"Unpack it if it is compressed, or get {title} again."
        )
    sizes = sizes[:num_sizes]
    expected = 4 * (1 + num_sizes) + math.prod(sizes)
    actual = path.stat().st_size
    if actual != expected or not sizes[0]:
        problem = "truncated" if actual < expected else "too long" if sizes[0] else "empty"
        raise UserError(
            f"{path} is {problem}: it has {actual} bytes, and its header announces {expected}. "
            f"Delete it and get {title} again."
        )
    return sizes
