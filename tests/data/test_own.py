"""Files, folders and arrays of one's own, as splits."""

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_latents.data.own import FEWEST, in_memory, own_shape, own_splits, read_own, read_points
from pyro_latents.data.points import as_points, points_like
from pyro_latents.data.sources import load
from pyro_latents.errors import UserError

COUNT, CLASSES = 40, 4


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.arange(COUNT) % CLASSES


def write_folder(root, images, classes=None, mode="L"):
    for i, image in enumerate(images):
        folder = root if classes is None else root / str(classes[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(folder / f"{i:03}.png")
    return root


def same_points(one, other):
    """Whether two tensors hold the same data points, in whatever order."""
    return torch.equal(*(x.flatten(1).unique(dim=0) for x in (one, other)))


def all_points(splits):
    return torch.cat([splits.train.x, splits.validation.x, splits.test.x])


def test_an_array_is_shared_out_without_loss(images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    splits = load(str(tmp_path / "x.npy"), validation=10)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [30, 2, 8]
    assert same_points(all_points(splits), as_points(images))
    assert splits.num_classes == 0
    again = load(str(tmp_path / "x.npy"), validation=10)
    assert torch.equal(again.test.x, splits.test.x)


def test_the_test_set_has_the_classes_of_the_whole(images, labels, tmp_path):
    np.savez(tmp_path / "x.npz", images=images, labels=labels + 7)
    splits = load(str(tmp_path / "x.npz"), validation=0)
    assert splits.test.y.bincount().tolist() == [2] * CLASSES
    assert splits.num_classes == CLASSES
    # Rows go together: the class of each point is still its own.
    pixels = as_points(images).flatten(1)
    for x, y in zip(splits.train.x.flatten(1), splits.train.y, strict=True):
        assert labels[(pixels == x).all(1)] == y


@pytest.mark.parametrize(
    "names", [("x_train", "x_test", "x_val"), ("train_images", "test_images", "val_images")]
)
def test_parts_that_are_there_are_kept(names, images, tmp_path):
    train, test, validation = names
    np.savez(
        tmp_path / "x.npz", **{train: images[:20], test: images[20:33], validation: images[33:]}
    )
    splits = load(str(tmp_path / "x.npz"))
    assert torch.equal(splits.test.x, as_points(images[20:33]))
    assert torch.equal(splits.validation.x, as_points(images[33:]))
    assert same_points(splits.train.x, as_points(images[:20]))


def test_a_folder_of_classes(images, labels, tmp_path):
    folder = write_folder(tmp_path / "pets", images, [f"class {y}" for y in labels])
    assert own_shape(folder) == (1, 6, 5)
    splits = load(str(folder), validation=0)
    assert splits.num_classes == CLASSES
    assert same_points(all_points(splits), as_points(images))


def test_a_folder_with_a_part_for_tests(images, labels, tmp_path):
    write_folder(tmp_path / "pets" / "train", images[:30], labels[:30])
    write_folder(tmp_path / "pets" / "test", images[30:], labels[30:])
    splits = load(str(tmp_path / "pets"), validation=0)
    assert same_points(splits.test.x, as_points(images[30:]))
    assert len(splits.train) == 30


def test_a_flat_folder_in_colour(images, tmp_path):
    folder = write_folder(tmp_path / "pets", images, mode="RGB")
    splits = load(str(folder), validation=0)
    assert splits.shape == (3, 6, 5)
    assert splits.train.y is None


def test_a_single_image_is_a_batch_of_one(images, tmp_path):
    path = write_folder(tmp_path / "pets", images[:1]) / "000.png"
    assert torch.equal(read_points(path), as_points(images[:1]))


def test_arrays_in_memory_are_data(images, labels):
    for data in (images, (images, labels), {"x": images, "y": labels}, torch.from_numpy(images)):
        splits = own_splits(in_memory(data), 0, "arrays")
        assert same_points(all_points(splits), as_points(images))


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (np.zeros((9, 4, 5)), (9, 1, 4, 5)),
        (np.zeros((9, 4, 5, 3)), (9, 3, 4, 5)),
        (np.zeros((9, 3, 4, 5), np.float64), (9, 3, 4, 5)),
        (np.zeros((9, 7)), (9, 7)),
        (np.ones((9, 4, 5), bool), (9, 1, 4, 5)),
        (np.zeros((9, 4, 5), ">f4"), (9, 1, 4, 5)),
        ([[1, 2], [3, 4]], (2, 2)),
    ],
    ids=["grey", "channels last", "channels first", "vectors", "truth", "other bytes", "a list"],
)
def test_shapes_and_kinds_of_arrays(values, shape):
    found = as_points(values)
    assert found.shape == shape
    assert found.dtype == torch.float32


def test_bytes_are_divided_and_numbers_are_not():
    assert as_points(np.full((2, 3, 3), 255, np.uint8)).max() == 1
    assert as_points(np.full((2, 3, 3), 51, np.uint16)).max() == pytest.approx(0.2)
    assert as_points(np.full((2, 3, 3), 1, np.uint8)).max() == pytest.approx(1 / 255)
    assert as_points(np.full((2, 3, 3), 1, np.int64)).max() == 1
    assert as_points(np.full((2, 3, 3), 0.3)).max() == pytest.approx(0.3)
    assert as_points(np.full((2, 3), 300)).max() == 300


def test_channels_are_moved_with_their_pixels():
    image = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
    assert as_points(image)[1, 2, 3, 4] == image[1, 3, 4, 2]


def test_points_of_a_known_shape_may_be_single():
    assert points_like(np.zeros((4, 5)), (1, 4, 5)).shape == (1, 1, 4, 5)
    assert points_like(np.zeros(3), (3,)).shape == (1, 3)
    colour = np.random.default_rng(0).random((4, 5, 3))
    assert torch.equal(points_like(colour, (3, 4, 5)), as_points(colour[None]))
    for values in (np.zeros((2, 4, 6)), np.zeros((4, 6))):
        with pytest.raises(UserError, match="grey images of 4 x 6, not the grey images of 4 x 5"):
            points_like(values, (1, 4, 5))


REFUSED = {
    "half a range": (np.full((9, 4, 4), 1.5), "pixels from 1.5 to 1.5"),
    "below zero": (np.full((9, 4, 4), -1), "whole numbers from -1 to -1"),
    "around zero": (np.full((9, 4, 4), -0.5), "or bytes; add to them what makes none negative"),
    "beyond bytes": (np.full((9, 4, 4), 300), "whole numbers from 300 to 300"),
    "not a number": (np.full((9, 4, 4), np.nan), "not finite"),
    "two channels": (np.zeros((9, 2, 4, 4)), "of shape (9, 2, 4, 4): data points are"),
    "a line": (np.zeros(9), "of shape (9,)"),
    "nothing": (np.zeros((0, 4, 4)), "of shape (0, 4, 4)"),
    "words": (np.array([["a"]]), "no array of numbers"),
    "ragged lists": ([[1], [1, 2]], "no array of numbers"),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED)
def test_what_are_no_data_points(values, words):
    with pytest.raises(UserError) as raised:
        as_points(values)
    assert words in str(raised.value)


def test_data_that_do_not_fit_together(images, labels):
    for data, words in {
        "labels": ((images, labels[1:]), r"labels of shape \(39,\) for the 40 points"),
        "kinds": ((images, labels / 3), "labels that are no classes"),
        "sizes": ({"x_train": images, "x_test": images[:, :5]}, "6 x 5 to train on and"),
        "names": ({"a": images, "b": labels}, "has a, b: name the data points x"),
        "few": (images[: FEWEST - 1], "has 9 data points: 10 are the fewest"),
        "three": ((images, labels, labels), "got 3 things"),
        "test labels": (
            {"x_train": images, "y_train": labels, "x_test": images},
            r"labels of shape \(0,\) for the 40 points of test",
        ),
    }.values():
        with pytest.raises(UserError, match=words):
            own_splits(in_memory(data), 0, "mine")


def test_a_file_reads_the_same_as_its_array(images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    ((x, y),) = read_own(tmp_path / "x.npy").values()
    assert y is None
    assert np.array_equal(x, images)
