from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_latents.data.idx import idx_images
from pyro_latents.errors import UserError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("title", ["MNIST", "FashionMNIST"])
def test_reads_the_layout_of_torchvision(tiny_idx, title):
    root = tiny_idx(title)
    splits = idx_images(title, root, validation=5)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [25, 5, 10]
    raw = np.fromfile(root / title / "raw" / IMAGES, np.uint8, offset=16).reshape(30, 1, 28, 28)
    expected = torch.from_numpy(raw).float() / 255
    torch.testing.assert_close(splits.train.x, expected[:25])
    torch.testing.assert_close(splits.validation.x, expected[25:])
    assert splits.train.y.tolist() == [i % 10 for i in range(25)]
    assert splits.provenance == title


def test_all_images_may_be_trained_on(tiny_idx):
    splits = idx_images("MNIST", tiny_idx("MNIST"), validation=0)
    assert [len(splits.train), len(splits.validation)] == [30, 0]


def test_rejects_a_validation_set_that_leaves_nothing(tiny_idx):
    with pytest.raises(UserError, match=r"--validation must be in 0\.\.29 for MNIST.*got 30"):
        idx_images("MNIST", tiny_idx("MNIST"), validation=30)


def test_missing_data_name_the_folder_and_the_way_to_get_them(tmp_path):
    with pytest.raises(
        UserError, match="MNIST not found in .*--data-dir .*download=True"
    ) as error:
        idx_images("MNIST", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere" / "MNIST" / "raw" / IMAGES) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_single_missing_file_is_named(tiny_idx):
    root = tiny_idx("MNIST")
    (root / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="there is no .*t10k-labels-idx1-ubyte"):
        idx_images("MNIST", root)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def compress(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b\x08\x00" + path.read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"is truncated: it has 23436 bytes, and its header announces 23536\. Delete it"),
        (cut_header, "is truncated: it has 6 bytes"),
        (lambda path: path.write_bytes(b""), "is truncated: it has 0 bytes"),
        (lengthen, "is too long: it has 23537 bytes"),
        (compress, "begins with 529205248, not with the 2051 .* Unpack it if it is compressed"),
    ],
    ids=["truncated", "header", "nothing", "long", "gzip"],
)
def test_rejects_damaged_images(tiny_idx, damage, message):
    root = tiny_idx("MNIST")
    damage(root / "MNIST/raw" / IMAGES)
    with pytest.raises(UserError, match=f"{IMAGES} .*{message}") as error:
        idx_images("MNIST", root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((30,), "begins with 2049, not with the 2051"),
        ((0, 28, 28), "is empty"),
        ((30, 8, 8), "holds images of 8x8 pixels, not 28x28"),
    ],
    ids=["labels", "empty", "small"],
)
def test_rejects_other_contents(tiny_idx, write_idx, shape, message):
    root = tiny_idx("MNIST")
    write_idx(root / "MNIST/raw" / IMAGES, np.zeros(shape))
    with pytest.raises(UserError, match=f"{IMAGES} {message}"):
        idx_images("MNIST", root)


def test_rejects_labels_of_another_length(tiny_idx, write_idx):
    root = tiny_idx("MNIST")
    write_idx(root / "MNIST/raw" / LABELS, np.zeros(29))
    with pytest.raises(UserError, match=f"{LABELS} has 29 labels for the 30 images of {IMAGES}"):
        idx_images("MNIST", root)


def test_rejects_labels_outside_the_classes(tiny_idx, write_idx):
    root = tiny_idx("MNIST")
    write_idx(root / "MNIST/raw" / LABELS, np.arange(30))
    with pytest.raises(UserError, match=rf"{LABELS} has labels in 0\.\.29, outside 0\.\.9"):
        idx_images("MNIST", root)


def test_the_real_files_have_their_known_mean(mnist_dir):
    splits = idx_images("MNIST", mnist_dir)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [50000, 10000, 10000]
    total = splits.train.x.double().sum() + splits.validation.x.double().sum()
    assert float(total) / (60_000 * 784) == pytest.approx(0.1307, abs=1e-4)
