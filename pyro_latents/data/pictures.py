"""Files of images: flat in a folder, or by class as torchvision's `ImageFolder` has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyro_latents.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
# What Pillow calls images of one channel; all others are made red, green and blue.
GREY = ("1", "L", "LA")
Arrays = tuple[np.ndarray, np.ndarray | None]


def image_shape(folder: Path) -> tuple[int, ...]:
    """Return the shape of the first image of a folder, `channels height width`."""
    return _read(_listed(folder)[0][0]).shape


def read_images(folder: Path) -> Arrays:
    """Return the images of a folder, bytes of shape `n channels height width`, and their classes.

    Classes are the names of the folders that the images are in, or None where they are in no
    folder of their own. The order is that of the names.

    Raises:
        UserError: if there are none, one cannot be read, or they differ in size or channels.
    """
    listed = _listed(folder)
    images = [_read(path) for path, _ in listed]
    for (path, _), image in zip(listed, images, strict=True):
        if image.shape != images[0].shape:
            raise UserError(
                f"{path} is {_words(image)} and {listed[0][0]} is {_words(images[0])}: make the "
                "images of one size, all grey or all in colour."
            )
    classes = [name for _, name in listed]
    return np.stack(images), None if classes[0] is None else np.array(classes)


def read_image(path: Path) -> np.ndarray:
    """Return one image as bytes, `1 channels height width`."""
    return _read(path)[None]


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its name."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def _listed(folder: Path) -> list[tuple[Path, str | None]]:
    """The images with their classes, by name."""
    flat, inner = _sorted(folder), [path for path in sorted(folder.iterdir()) if path.is_dir()]
    by_class: list[tuple[Path, str | None]] = [
        (path, part.name) for part in inner for path in _sorted(part)
    ]
    if flat and by_class:
        raise UserError(
            f"{folder} has images both in it and in folders in it: put each into the folder of "
            "its class, or all into one."
        )
    if not flat and not by_class:
        raise UserError(
            f"{folder} has no images, such as .png and .jpg files, neither in it nor in folders "
            "of classes."
        )
    return by_class or [(path, None) for path in flat]


def _sorted(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and is_image(path))


def _read(path: Path) -> np.ndarray:
    """An image as bytes, `channels height width`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UserError(f"{path} has more than 8 bits a pixel: save it with 8.")
            grey = image.mode in GREY
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as an image: mend it or take it away.") from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _words(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{'grey' if channels == 1 else 'colour'}, {height} x {width}"
