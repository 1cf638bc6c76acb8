import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyro_latents.data.affine import affine_matrix
from pyro_latents.data.affnist import affnist, official, random_maps, regenerated
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.idx import idx_images
from pyro_latents.errors import UserError


def blobs(size: int) -> Examples:
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(size, 1, 28, 28)
    # Off the centre, so that a shift must take account of where the ink is.
    x[..., 3:21, 12:24] = torch.randint(0, 256, (size, 1, 18, 12), generator=generator) / 255
    return Examples(x, torch.arange(size) % 10, provenance="blobs")


@pytest.fixture(scope="module")
def made() -> Splits:
    return regenerated(Splits(blobs(300), blobs(0), blobs(40), 10))


def slow_version(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The protocol for one digit, pixel by pixel."""
    padded = np.pad(image, 6)
    result = np.zeros((40, 40))
    inverse = np.linalg.inv(matrix)
    for row in range(40):
        for column in range(40):
            x, y = inverse @ (np.array([column - 19.5, 19.5 - row]) - shift)
            c, r = x + 19.5, 19.5 - y
            left, top = math.floor(c), math.floor(r)
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (1 - abs(r - top - i)) * (1 - abs(c - left - j))
                if 0 <= top + i < 40 and 0 <= left + j < 40:
                    result[row, column] += weight * padded[top + i, left + j]
    return np.clip(np.rint(result * 255), 0, 255) / 255


def test_equals_the_protocol_pixel_by_pixel(made):
    images = blobs(300).x
    extras = made.train.extras
    matrices = affine_matrix(extras["angle"], extras["shear"], extras["scale"]).double()
    for i in (0, 7, 299):
        expected = slow_version(
            images[i, 0].double().numpy(), matrices[i].numpy(), extras["translation"][i].numpy()
        )
        actual = made.train.x[i, 0].numpy()
        # A value within rounding of a half may fall to either side.
        assert np.abs(actual - expected).max() <= 1.01 / 255
        assert (np.abs(actual - expected) > 1e-4).mean() < 0.01


def test_the_draws_have_the_ranges_of_the_protocol(made):
    extras = made.train.extras
    for values, bound in (
        (extras["angle"], math.radians(20)),
        (extras["shear"], 0.2),
        (extras["scale"].log(), math.log(1.25)),
    ):
        assert 0.95 * bound < float(values.max()) <= bound + 1e-6
        assert -bound - 1e-6 <= float(values.min()) < -0.95 * bound
        assert abs(float(values.mean())) < 0.1 * bound


def test_no_ink_leaves_the_canvas(made):
    images, extras = blobs(300).x, made.train.extras
    scale = extras["scale"]
    # The area, and with it the ink, changes by the determinant; rotation and shear keep it.
    expected = images.sum((1, 2, 3)) * scale.prod(-1)
    torch.testing.assert_close(made.train.x.sum((1, 2, 3)), expected, rtol=0.04, atol=0)


def test_shifts_reach_every_border():
    x = torch.zeros(4000, 1, 28, 28)
    x[:, :, 13:15, 13:15] = 1
    shift = random_maps(x, torch.Generator().manual_seed(0))["translation"]
    assert float(shift.abs().max()) < 19.5
    assert float(shift.amax(0).min()) > 18
    assert float(shift.amin(0).max()) < -18


def test_a_blank_image_stays_blank():
    parts = Splits(Examples(torch.zeros(3, 1, 28, 28)), blobs(0), blobs(1))
    train = regenerated(parts).train
    assert torch.equal(train.x, torch.zeros(3, 1, 40, 40))
    assert bool(train.extras["translation"].isfinite().all())


def test_results_are_labelled_as_regenerated(made):
    assert made.provenance == (
        "affNIST regenerated from MNIST (a stand-in, not the official files), seed 0"
    )


def test_labels_are_kept(made):
    assert torch.equal(made.train.y, blobs(300).y)


def test_the_seed_decides(made):
    parts = Splits(blobs(300), blobs(0), blobs(40), 10)
    assert torch.equal(regenerated(parts).test.x, made.test.x)
    assert not torch.equal(regenerated(parts, seed=1).test.x, made.test.x)


def test_pixels_are_bytes(made):
    levels = made.test.x * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert float(levels.max()) <= 255


def write_page(folder: Path, page: int, size: int, **changed: np.ndarray) -> Path:
    rng = np.random.default_rng(page)
    data = {
        "image": rng.integers(0, 256, (1600, size), dtype=np.uint8),
        "label_int": (np.arange(size) % 10).astype(np.uint8)[None],
        "human_readable_transform": rng.random((6, size)),
        **changed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / f"{page}.mat", {"affNISTdata": data}, do_compression=True)
    return folder / f"{page}.mat"


@pytest.fixture
def root(tmp_path) -> Path:
    write_page(tmp_path / "affNIST/training_and_validation_batches", 1, 12)
    write_page(tmp_path / "affNIST/test_batches", 1, 5)
    return tmp_path


def test_official_files_are_preferred(root):
    splits = affnist(root, validation=2)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [10, 2, 5]
    assert splits.provenance == "affNIST, official files"
    column = np.random.default_rng(1).integers(0, 256, (1600, 12), dtype=np.uint8)[:, 3]
    expected = torch.from_numpy(column.reshape(1, 40, 40)).float() / 255
    torch.testing.assert_close(splits.train.x[3], expected)
    assert splits.train.y.tolist() == list(range(10))


def test_official_validation_files_are_used(tmp_path):
    for name, size in (("training", 12), ("validation", 4), ("test", 5)):
        write_page(tmp_path / f"{name}_batches", 1, size)
    splits = official(tmp_path)
    assert [len(splits.train), len(splits.validation)] == [12, 4]
    splits = official(tmp_path, validation=0)
    assert [len(splits.train), len(splits.validation)] == [16, 0]


def test_without_either_set_the_missing_mnist_is_named(tmp_path):
    with pytest.raises(UserError, match="MNIST not found in"):
        affnist(tmp_path)


def test_a_missing_page_is_named(root):
    (root / "affNIST/test_batches/1.mat").unlink()
    with pytest.raises(UserError, match=r"affNIST is incomplete: there is no .*1\.mat\. Unpack"):
        affnist(root, validation=2)


def test_rejects_a_truncated_page(root):
    path = root / "affNIST/test_batches/1.mat"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"1\.mat cannot be read as a MATLAB file") as error:
        affnist(root, validation=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label_int": np.zeros((1, 4))}, r"must hold 1600xN bytes .*\(1600, 5\).* and 4 labels"),
        ({"image": np.zeros((784, 5), np.uint8)}, "must hold 1600xN bytes"),
        ({"label_int": np.full((1, 5), 10)}, r"has labels in 10\.\.10, outside 0\.\.9"),
    ],
    ids=["labels", "size", "classes"],
)
def test_rejects_wrong_contents(root, changed, message):
    write_page(root / "affNIST/test_batches", 1, 5, **changed)
    with pytest.raises(UserError, match=message):
        affnist(root, validation=2)


def test_regenerates_from_the_real_digits(mnist_dir):
    mnist = idx_images("MNIST", mnist_dir, validation=0)
    part = mnist.test.take(slice(2000))
    test = regenerated(Splits(part.take(slice(0)), part.take(slice(0)), part, 10)).test
    ink = part.x.sum((1, 2, 3)) * test.extras["scale"].prod(-1)
    # Figures of an independent implementation of the protocol.
    assert test.extras["translation"].std(0).tolist() == pytest.approx([7.0, 5.8], abs=0.4)
    torch.testing.assert_close(test.x.sum((1, 2, 3)), ink, rtol=0.08, atol=0)
