"""The Street View House Numbers: MATLAB files, read by torchvision."""

from pathlib import Path

import torch

from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.folders import held_out, not_found, torchvision_command
from pyro_latents.data.idx import as_images
from pyro_latents.errors import UserError

SHAPE = (3, 32, 32)
NUM_CLASSES = 10
PARTS = ("train", "test")


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
        if not (folder / f"{part}_32x32.mat").is_file():
            download = "; ".join(
                f"SVHN({str(data_dir)!r}, {name!r}, download=True)" for name in PARTS
            )
            raise not_found(
                "SVHN",
                folder / f"{part}_32x32.mat",
                data_dir,
                f"run: {torchvision_command('SVHN', download)}",
            )
    train, test = (_read(folder, part) for part in PARTS)
    num_train = held_out(len(train), validation, "SVHN")
    return Splits(
        train=train.take(slice(num_train)),
        validation=train.take(slice(num_train, None)),
        test=test,
        num_classes=NUM_CLASSES,
    )


def _read(folder: Path, part: str) -> Examples:
    from torchvision.datasets import SVHN

    class AnySize(SVHN):
        # Without the official check sums, so that a subset in the same layout is read as well.
        split_list = {name: [url, file, None] for name, (url, file, _) in SVHN.split_list.items()}

    path = folder / f"{part}_32x32.mat"
    # A damaged file makes the MATLAB reader fail in as many ways as there are kinds of damage.
    try:
        data = AnySize(folder, part)
        x, y = torch.from_numpy(data.data), torch.from_numpy(data.labels)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{path} cannot be read as a MATLAB file with X and y ({reason}). "
            f"Delete it and get SVHN again."
        ) from error
    if x.shape[1:] != SHAPE or x.dtype != torch.uint8 or y.shape != x.shape[:1]:
        raise UserError(
            f"{path} must hold X of 32x32x3xN bytes and as many labels y; got X of "
            f"{'x'.join(map(str, x.permute(2, 3, 1, 0).shape))} ({x.dtype}) and y of "
            f"{tuple(y.shape)}. Delete it and get SVHN again."
        )
    if not 0 <= int(y.min()) <= int(y.max()) < NUM_CLASSES:
        raise UserError(
            f"{path} has labels in {int(y.min())}..{int(y.max())}, outside 0..{NUM_CLASSES - 1}. "
            f"Delete it and get SVHN again."
        )
    return Examples(as_images(x), y, provenance="SVHN, cropped digits")
