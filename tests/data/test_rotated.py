import math

import pytest
import torch

from pyro_latents.data import rotated
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.rotated import rotated_splits


def wedges(size: int) -> Examples:
    """Images with ink to the right of the centre only."""
    x = torch.zeros(size, 1, 15, 15)
    x[..., 6:9, 9:13] = 1
    return Examples(x, torch.arange(size) % 3, provenance="wedges")


def direction(images: torch.Tensor) -> torch.Tensor:
    axis = torch.arange(15.0) - 7
    x, y = (images[:, 0].sum(1) * axis).sum(-1), -(images[:, 0].sum(2) * axis).sum(-1)
    return torch.atan2(y, x) % (2 * math.pi)


@pytest.fixture
def splits() -> Splits:
    return rotated_splits(Splits(wedges(200), wedges(0), wedges(50), num_classes=3))


def test_images_are_turned_by_their_recorded_angle(splits):
    train = splits.train
    torch.testing.assert_close(direction(train.x), train.extras["angle"], atol=0.02, rtol=0)


def test_angles_are_uniform_up_to_350_degrees(splits):
    angle = splits.train.extras["angle"] / math.radians(350)
    assert 0 <= float(angle.min()) < 0.05
    assert 0.95 < float(angle.max()) <= 1
    assert float(angle.mean()) == pytest.approx(0.5, abs=0.08)


def test_upright_images_labels_and_origin_are_kept(splits):
    assert torch.equal(splits.train.extras["upright"], wedges(200).x)
    assert torch.equal(splits.train.y, wedges(200).y)
    assert splits.provenance == "wedges, turned by 0 to 350 degrees"
    assert splits.num_classes == 3


def test_splits_have_draws_of_their_own(splits):
    assert not torch.equal(splits.train.extras["angle"][:50], splits.test.extras["angle"])


def test_the_seed_decides(splits):
    parts = Splits(wedges(200), wedges(0), wedges(50))
    assert torch.equal(rotated_splits(parts, seed=0).train.x, splits.train.x)
    assert not torch.equal(rotated_splits(parts, seed=1).train.x, splits.train.x)


def test_chunks_make_no_difference(splits, monkeypatch):
    monkeypatch.setattr(rotated, "CHUNK", 7)
    again = rotated_splits(Splits(wedges(200), wedges(0), wedges(50)))
    torch.testing.assert_close(again.train.x, splits.train.x)
