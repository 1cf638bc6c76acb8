"""The Street View House Numbers: MATLAB files, read by torchvision."""

from pathlib import Path

import torch

from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.folders import (
    check_labels,
    held_out,
    not_found,
    readable,
    torchvision_command,
)
from pyro_latents.data.idx import as_images
from pyro_latents.errors import UserError

SHAPE = (3, 32, 32)
NUM_CLASSES = 10
PARTS = ("train", "test")
REMEDY = "Delete it and get SVHN again."


def svhn(data_dir: Path, validation: int = 3_257) -> Splits:
    """The cropped digits of SVHN under ``data_dir``, never downloaded.

    Args:
        data_dir: The root folder; ``train_32x32.mat`` and ``test_32x32.mat`` are in it or in its
            folder ``SVHN``.
        validation: How many of the 73,257 training images, the last ones, are set apart; the
            default leaves 70,000 as in Feige (2019).

    Raises:
        UserError: if a file is missing or broken, or the validation set leaves nothing.
    """
    nested = data_dir / "SVHN"
    folder = nested if nested.is_dir() else data_dir
    for part in PARTS:
        path = folder / f"{part}_32x32.mat"
        if not path.is_file():
            download = [f"SVHN({str(data_dir)!r}, {name!r}, download=True)" for name in PARTS]
            command = torchvision_command("SVHN", "; ".join(download))
            raise not_found("SVHN", path, data_dir, f"run: {command}")
    train, test = (_read(folder, part) for part in PARTS)
    return Splits(*held_out(train, validation, "SVHN"), test, NUM_CLASSES)


def _read(folder: Path, part: str) -> Examples:
    from torchvision.datasets import SVHN

    class AnySize(SVHN):
        # Without the official check sums, so that a subset in the same layout is read as well.
        split_list = {name: [url, file, None] for name, (url, file, _) in SVHN.split_list.items()}

    path = folder / f"{part}_32x32.mat"
    with readable(path, "X and y", REMEDY):
        data = AnySize(folder, part)
        x, y = torch.from_numpy(data.data), torch.from_numpy(data.labels)
    if x.shape[1:] != SHAPE or x.dtype != torch.uint8 or y.shape != x.shape[:1]:
        raise UserError(
            f"{path} must hold X of 32x32x3xN bytes and as many labels y; got X of "
            f"{'x'.join(map(str, x.permute(2, 3, 1, 0).shape))} ({x.dtype}) and y of "
            f"{tuple(y.shape)}. {REMEDY}"
        )
    check_labels(y, NUM_CLASSES, path, REMEDY)
    return Examples(as_images(x), y, provenance="SVHN, cropped digits")
