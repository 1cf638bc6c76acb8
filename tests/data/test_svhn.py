from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyro_latents.data.svhn import svhn
from pyro_latents.errors import UserError


def write_mat(folder: Path, part: str, size: int, **changed: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (32, 32, 3, size), dtype=np.uint8)
    # The files count the digit 0 as class 10.
    y = (np.arange(size) % 10 + 1).astype(np.uint8)[:, None]
    folder.mkdir(exist_ok=True)
    path = folder / f"{part}_32x32.mat"
    savemat(path, {"X": x, "y": y, **changed}, do_compression=True)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    write_mat(tmp_path, "train", 12)
    write_mat(tmp_path, "test", 5)
    return tmp_path


def test_reads_the_official_layout(root):
    splits = svhn(root, validation=2)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [10, 2, 5]
    assert splits.shape == (3, 32, 32)
    assert splits.train.y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    assert float(splits.train.x[3, 1, 5, 7]) == pytest.approx(x[5, 7, 1, 3] / 255)
    assert splits.train.x.dtype == torch.float32


def test_reads_the_folder_named_after_it(tmp_path):
    write_mat(tmp_path / "SVHN", "train", 12)
    write_mat(tmp_path / "SVHN", "test", 5)
    assert len(svhn(tmp_path, validation=0).train) == 12


def test_missing_files_are_named(root):
    (root / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match="SVHN not found in .*test_32x32.mat.*download=True") as e:
        svhn(root, validation=2)
    assert "\n" not in str(e.value)


def test_rejects_a_truncated_file(root):
    path = root / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="train_32x32.mat cannot be read as a MATLAB file") as e:
        svhn(root, validation=2)
    assert "\n" not in str(e.value)


def test_rejects_a_file_of_something_else(root):
    savemat(root / "train_32x32.mat", {"Z": np.zeros(3)})
    with pytest.raises(UserError, match=r"train_32x32.mat cannot be read .*KeyError: 'X'"):
        svhn(root, validation=2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": np.ones((11, 1))}, r"as many labels y; got .*32x32x3x12.* and y of \(11,\)"),
        ({"X": np.zeros((28, 28, 3, 12), np.uint8)}, "must hold X of 32x32x3xN bytes"),
        ({"X": np.zeros((32, 32, 3, 12))}, "must hold X of 32x32x3xN bytes"),
        ({"X": np.zeros((32, 32), np.uint8)}, "cannot be read"),
        ({"y": np.full((12, 1), 11)}, r"has labels in 11\.\.11, outside 0\.\.9"),
    ],
    ids=["labels", "size", "type", "dimensions", "classes"],
)
def test_rejects_wrong_contents(root, changed, message):
    write_mat(root, "train", 12, **changed)
    with pytest.raises(UserError, match=message):
        svhn(root, validation=2)
