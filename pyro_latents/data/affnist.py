r"""affNIST: MNIST digits under random affine maps on a canvas of 40x40.

The official files (Tieleman, University of Toronto, 2013) are read where they are present.
Otherwise the set is made again from MNIST by what is known of the protocol, and its provenance
says so: figures on it are not comparable with published ones without that remark.

Each digit is rotated by :math:`a \sim U(-20, 20)` degrees, sheared by :math:`s \sim U(-0.2,
0.2)`, scaled in x and y by factors log-uniform in [0.8, 1.25], and shifted. The official rule for
the shift and the official interpolation are not known; here the shift is uniform among those that
keep all ink on the canvas, and the interpolation is bilinear. Which training digits the official
validation set is made of is not known either; here it is the last ones.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_latents.data.affine import affine_matrix, centred_grid, move
from pyro_latents.data.batches import mixed_seed
from pyro_latents.data.examples import Examples, Splits, joined
from pyro_latents.data.folders import check_labels, held_out, readable
from pyro_latents.data.idx import NUM_CLASSES, as_images, idx_images
from pyro_latents.data.rotated import in_chunks
from pyro_latents.errors import UserError

CANVAS = 40
SHAPE = (1, CANVAS, CANVAS)
MAX_ANGLE = math.radians(20)
MAX_SHEAR = 0.2
MAX_LOG_SCALE = math.log(1.25)
PAGE = "1.mat"
REMEDY = "Delete it and unpack the official archive again."
OFFICIAL = "affNIST, official files"
REGENERATED = "affNIST regenerated from MNIST (a stand-in, not the official files), seed {seed}"


def affnist(
    data_dir: Path,
    validation: int = 10_000,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Splits:
    """The official affNIST under ``data_dir/affNIST``, or one made from ``data_dir/MNIST``.

    Args:
        data_dir: The root folder.
        validation: How many of the 60,000 training digits, the last ones, are set apart.
        seed: Of the regenerated maps.
        device: Where the images are regenerated and stay.

    Raises:
        UserError: if a file is broken, if there is neither affNIST nor MNIST, or if a number is
            out of range.
    """
    folder = data_dir / "affNIST"
    if folder.is_dir():
        return official(folder, validation).to(device)
    return regenerated(idx_images("MNIST", data_dir, validation).to(device), seed=seed)


def regenerated(mnist: Splits, *, seed: int = 0) -> Splits:
    """MNIST turned into affNIST, on the device of the digits.

    The maps are kept as ``extras``: ``angle`` (radians, counter-clockwise), ``shear``, ``scale``
    (x and y) and ``translation`` (pixels, right and up). Each split has its own draws, the same on
    every device.
    """
    parts = (mnist.train, mnist.validation, mnist.test)
    train, validation, test = (_moved(part, seed, i) for i, part in enumerate(parts))
    return replace(mnist, train=train, validation=validation, test=test)


def official(folder: Path, validation: int = 10_000) -> Splits:
    """The official files, unpacked: the first version of every digit, ``test_batches/1.mat``.

    The training images are in ``training_and_validation_batches``, and the last ``validation`` of
    them are set apart; or in ``training_batches``, beside ``validation_batches``, which are the
    validation set whatever its size, unless 0 joins them to the training set.

    Raises:
        UserError: if a file is missing or broken, or the validation set leaves nothing.
    """
    test = _read(folder / "test_batches" / PAGE)
    both = folder / "training_and_validation_batches"
    if both.is_dir():
        train, watched = held_out(_read(both / PAGE), validation, "affNIST")
    else:
        train = _read(folder / "training_batches" / PAGE)
        watched = _read(folder / "validation_batches" / PAGE)
        if not validation:
            train, watched = joined([train, watched]), watched.take(slice(0))
    return Splits(train, watched, test, NUM_CLASSES)


def random_maps(images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the map of each image, `batch 1 height width`, by the protocol.

    The generator is on the CPU, so that the draws are the same whatever device the images are on.

    Returns:
        ``angle`` and ``shear`` of shape `batch`, ``scale`` and ``translation`` of shape `batch 2`.
    """
    u = 2 * torch.rand(len(images), 6, generator=generator).to(images.device) - 1
    angle, shear = MAX_ANGLE * u[:, 0], MAX_SHEAR * u[:, 1]
    scale = (MAX_LOG_SCALE * u[:, 2:4]).exp()
    box = in_chunks(_ink_box, images, affine_matrix(angle, shear, scale))
    middle, half_width = box.chunk(2, dim=-1)
    translation = u[:, 4:] * ((CANVAS - 1) / 2 - half_width) - middle
    return {"angle": angle, "shear": shear, "scale": scale, "translation": translation}


def _ink_box(images: Tensor, matrix: Tensor) -> Tensor:
    """Middle and half width (x, y each) of the box around all moved ink, of shape `batch 4`."""
    points = centred_grid(*images.shape[-2:], like=matrix) @ matrix.transpose(-1, -2)
    ink = (images > 0).flatten(1).unsqueeze(-1)
    # An image without ink has the box of a point in the middle.
    nowhere = torch.where(ink.any(dim=1, keepdim=True), torch.inf, 0.0)
    low = torch.where(ink, points, nowhere).amin(dim=1)
    high = torch.where(ink, points, -nowhere).amax(dim=1)
    return torch.cat([high + low, high - low], dim=-1) / 2


def _moved(examples: Examples, seed: int, part: int) -> Examples:
    # The last number is that of the version; the protocol has 32.
    generator = torch.Generator().manual_seed(mixed_seed(seed, part, 0))
    maps = random_maps(examples.x, generator)
    matrix = affine_matrix(maps["angle"], maps["shear"], maps["scale"])
    onto_canvas = partial(move, size=(CANVAS, CANVAS))
    moved = in_chunks(onto_canvas, examples.x, matrix, maps["translation"])
    # The official images are bytes.
    x = moved.mul_(255).round_().clamp_(0, 255).div_(255)
    return Examples(x, examples.y, maps, provenance=REGENERATED.format(seed=seed))


def _read(path: Path) -> Examples:
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(
            f"affNIST is incomplete: there is no {path}. Unpack the official archive of "
            f"{path.parent.name} there, or rename {path.parents[1]} to regenerate it from MNIST."
        )
    with readable(path, "a struct affNISTdata", REMEDY):
        data = loadmat(path)["affNISTdata"][0, 0]
        pixels = torch.from_numpy(np.ascontiguousarray(data["image"].T))
        y = torch.from_numpy(data["label_int"].astype(np.int64).ravel())
    if pixels.dtype != torch.uint8 or pixels.shape != (len(y), CANVAS**2) or not len(y):
        raise UserError(
            f"{path} must hold {CANVAS**2}xN bytes of images and N labels; got "
            f"{tuple(pixels.T.shape)} ({pixels.dtype}) and {len(y)} labels. {REMEDY}"
        )
    check_labels(y, NUM_CLASSES, path, REMEDY)
    return Examples(as_images(pixels).reshape(-1, *SHAPE), y, provenance=OFFICIAL)
