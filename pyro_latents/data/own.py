"""Data of one's own: `.npy` and `.npz` files, folders of images, and arrays in memory.

What is set apart for tests is, where nothing says otherwise, a fixed fifth of the data, with the
classes in the proportions of the whole.

================== ==================================================================
`x.npy`            one array of data points, without labels
`x.npz`            arrays `x` and `y`; or `x_train`, `y_train`, `x_test`, `y_test` (and `x_val`),
                   the two halves of a name either way round; `images` and `labels` do as well
a folder           images, or a folder of images for each class; or these in `train` and `test`
================== ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_latents.data.digits import stratified_order
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.pictures import image_shape, is_image, read_image, read_images
from pyro_latents.data.points import as_points, in_words, point_shape
from pyro_latents.errors import UserError

# What the data of a recipe are called that were given as arrays, and are kept nowhere.
IN_MEMORY = "arrays"
X, Y = ("x", "images", "data", "arr_0"), ("y", "labels", "targets", "arr_1")
PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
TEST_SHARE, VALIDATION_SHARE = 5, 10  # a fifth of all, a tenth of what is left
FEWEST = 10
# Data points of each part, and their labels of any kind.
Parts = dict[str, tuple[Any, Any]]


def own_file(name: str, root: Path) -> Path:
    """Return where data of one's own are: where they were, or in the folder of the data sets.

    Args:
        name: The path that they had when they were first named.
        root: The folder of the data sets.

    Raises:
        UserError: if they are in neither place.
    """
    path = Path(name).expanduser()
    places = [path, root / path.name]
    if root.name == path.name:
        places.append(root)
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"the data are no longer at {path}: name the folder that has {path.name} now with "
        "--data-dir, or give them with zoo.open_run(..., data=...)."
    )


def own_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of one of the data points in a file or folder; most is left unread."""
    if path.is_dir():
        return image_shape(_folders(path)["train"])
    x, _ = _of_file(path, mmap_mode="r")["train"]
    return point_shape(x.shape, str(path))


def read_points(path: Path) -> Tensor:
    """Return the data points of a file, of a folder or of a single image, without any labels."""
    if path.is_file() and is_image(path):
        return as_points(read_image(path), str(path))
    return torch.cat([as_points(x, str(path)) for x, _ in read_own(path).values()])


def read_own(path: Path) -> Parts:
    """Return what a file or folder has, by part: data points, and labels or None.

    Raises:
        UserError: if it has no data points, or cannot be read.
    """
    if path.is_dir():
        return {part: read_images(folder) for part, folder in _folders(path).items()}
    return _of_file(path)


def in_memory(data: Any) -> Parts:
    """Return what arrays in memory are, by part.

    Args:
        data: Data points; or a pair of them and their labels; or a dictionary with the names
            that an `.npz` file may have.
    """
    if isinstance(data, Mapping):
        return _named(data, "the dictionary of data")
    if isinstance(data, tuple):
        if len(data) != 2:
            raise UserError(
                f"a tuple of data is the points and their labels; got {len(data)} things: name "
                "them in a dictionary, such as x_train and x_test."
            )
        return {"train": (data[0], data[1])}
    return {"train": (data, None)}


def own_splits(parts: Parts, validation: int, title: str) -> Splits:
    """Make splits of what there is.

    Args:
        parts: Data points and labels by part.
        validation: Points to set apart of those for training; no more than a tenth of them are.
        title: What the data are called.

    Raises:
        UserError: if they do not fit together, or are too few.
    """
    points = {part: as_points(x, f"{title} ({part})") for part, (x, _) in parts.items()}
    shape = points["train"].shape[1:]
    for part, x in points.items():
        if x.shape[1:] != shape:
            raise UserError(
                f"{title} has {in_words(tuple(shape))} to train on and "
                f"{in_words(tuple(x.shape[1:]))} for {part}: make them alike."
            )
    labels, num_classes = _labels({part: y for part, (_, y) in parts.items()}, points, title)
    examples = {
        part: Examples(x, labels.get(part), provenance=f"{title}, {len(x)} points")
        for part, x in points.items()
    }
    train = examples["train"]
    if len(train) < FEWEST:
        raise UserError(f"{title} has {len(train)} data points: {FEWEST} are the fewest.")
    order = stratified_order(torch.zeros(len(train)).long() if train.y is None else train.y)
    if "test" not in examples:
        examples["test"], order = _cut(train, order, max(1, len(order) // TEST_SHARE))
    # An even number: some objectives compare data points, and a batch may not have one alone.
    most = min(validation, len(order) // VALIDATION_SHARE) // 2 * 2
    if "validation" not in examples:
        examples["validation"], order = _cut(train, order, most)
    return Splits(train.take(order), examples["validation"], examples["test"], num_classes)


def _cut(whole: Examples, order: Tensor, size: int) -> tuple[Examples, Tensor]:
    """The first of an order, and what is left of it."""
    return whole.take(order[:size]), order[size:]


def _labels(
    given: dict[str, Any], points: dict[str, Tensor], title: str
) -> tuple[dict[str, Tensor], int]:
    """Labels as whole numbers from 0 on, in the order of what they were, and their number."""
    known = {part: np.asarray(y) for part, y in given.items() if y is not None}
    if not known:
        return {}, 0
    for part, x in points.items():
        count = known[part].shape if part in known else (0,)
        if count != (len(x),):
            raise UserError(
                f"{title} has labels of shape {count} for the {len(x)} points of {part}: give one "
                "for each, or none at all."
            )
    every = np.concatenate(list(known.values()))
    if every.dtype.kind == "f" and not np.array_equal(every, np.round(every)):
        raise UserError(f"{title} has labels that are no classes, such as {every[0]}.")
    values, numbers = np.unique(every, return_inverse=True)
    sizes = [len(y) for y in known.values()]
    split = torch.from_numpy(numbers.reshape(-1)).long().split(sizes)
    return dict(zip(known, split, strict=True)), len(values)


def _of_file(path: Path, **options: Any) -> Parts:
    if path.suffix == ".npy":
        return {"train": (_loaded(path, **options), None)}
    if path.suffix == ".npz":
        return _named(_loaded(path), str(path))
    raise UserError(f"{path} is no data: give a .npy or .npz file, or a folder of images.")


def _named(arrays: Mapping[str, Any], title: str) -> Parts:
    """The parts of arrays with names."""
    known = {str(name).lower(): value for name, value in arrays.items()}
    found: Parts = {}
    for part, words in {**PARTS, "train": ("", *PARTS["train"])}.items():
        x = _first(known, X, words)
        if x is not None:
            found[part] = x, _first(known, Y, words)
    if "train" not in found and len(known) == 1:
        found["train"] = next(iter(known.values())), None
    if "train" not in found:
        raise UserError(
            f"{title} has {', '.join(map(str, arrays)) or 'nothing'}: name the data points x and "
            "the labels y, or x_train, y_train, x_test and y_test."
        )
    return found


def _first(known: Mapping[str, Any], kinds: tuple[str, ...], words: tuple[str, ...]) -> Any:
    for kind in kinds:
        for word in words:
            for name in (f"{kind}_{word}", f"{word}_{kind}") if word else (kind,):
                if name in known:
                    return known[name]
    return None


def _folders(path: Path) -> dict[str, Path]:
    """The folder of each part, or the whole folder to train on."""
    found = {
        part: path / word
        for part, words in PARTS.items()
        for word in words
        if (path / word).is_dir()
    }
    return found if "train" in found else {"train": path}


def _loaded(path: Path, **options: Any) -> Any:
    """The array of a file, or those of an archive by name."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        return np.load(path, allow_pickle=False, **options)
    except Exception as error:  # a damaged file fails in as many ways as there are damages
        raise UserError(
            f"{path} cannot be read as an array of numbers: write it with numpy.save or savez."
        ) from error
