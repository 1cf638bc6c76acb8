import pytest
import torch

from pyro_latents.data.digits import digits
from pyro_latents.errors import UserError


@pytest.fixture(scope="module")
def splits():
    return digits()


def test_all_1797_digits_are_split(splits):
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [1257, 180, 360]
    everything = torch.cat([splits.train.x, splits.validation.x, splits.test.x])
    assert len(everything.flatten(1).unique(dim=0)) == 1797


def test_images_are_28_by_28_in_the_unit_interval(splits):
    x = splits.train.x
    assert x.shape[1:] == (1, 28, 28)
    assert x.dtype == torch.float32
    assert float(x.min()) == 0
    assert float(x.max()) == 1
    assert float(x[..., :4, :].max()) == 0


def test_every_split_is_stratified(splits):
    whole = sum(part.y.bincount() for part in (splits.train, splits.validation, splits.test))
    for part in (splits.train, splits.validation, splits.test, splits.train.take(slice(100))):
        expected = whole / 1797 * len(part)
        assert float((part.y.bincount(minlength=10) - expected).abs().max()) <= 2


def test_the_split_is_fixed(splits):
    torch.manual_seed(5)
    assert torch.equal(digits().train.x, splits.train.x)


def test_the_validation_size_leaves_the_test_set_alone(splits):
    other = digits(validation=0)
    assert [len(other.train), len(other.validation)] == [1437, 0]
    assert torch.equal(other.test.x, splits.test.x)


def test_rejects_a_validation_set_that_leaves_nothing():
    with pytest.raises(UserError, match=r"--validation must be in 0\.\.1436 for digits"):
        digits(validation=1437)


def test_digits_look_like_their_labels(splits):
    means = torch.stack([splits.train.x[splits.train.y == k].mean(0) for k in range(10)])
    nearest = torch.cdist(splits.test.x.flatten(1), means.flatten(1)).argmin(1)
    assert float((nearest == splits.test.y).float().mean()) > 0.85
