import math

import pytest
import torch

from pyro_latents.data.manifolds import circle_anchors, circles, swiss_roll, swiss_roll_anchors
from pyro_latents.errors import UserError


def fitted_map(examples) -> torch.Tensor:
    return torch.linalg.lstsq(examples.extras["latent"], examples.x).solution


def test_the_roll_winds_from_one_and_a_half_to_four_and_a_half_pi():
    train = swiss_roll().train
    angle = train.extras["position"]
    assert len(train) == 1000
    assert float(angle.min()) >= 1.5 * math.pi
    assert float(angle.max()) <= 4.5 * math.pi
    radius = train.extras["latent"].norm(dim=-1)
    torch.testing.assert_close(radius, angle / 10)
    assert train.y is None


def test_the_circles_have_radii_one_half_and_one():
    train = circles().train
    assert train.y.bincount().tolist() == [200, 200]
    radius = train.extras["latent"].norm(dim=-1)
    torch.testing.assert_close(radius, torch.tensor([0.5, 1.0])[train.y])


@pytest.mark.parametrize(
    ("make", "noise_scale"), [(swiss_roll, 0.001), (circles, 0.01)], ids=["roll", "circles"]
)
def test_points_are_a_linear_map_plus_noise(make, noise_scale):
    train = make().train
    residual = train.x - train.extras["latent"] @ fitted_map(train)
    assert train.shape == (20,)
    assert float(residual.std()) == pytest.approx(noise_scale, rel=0.05)


@pytest.mark.parametrize("make", [swiss_roll, circles])
def test_the_splits_share_the_map(make):
    splits = make()
    torch.testing.assert_close(
        fitted_map(splits.train), fitted_map(splits.test), atol=0.01, rtol=0
    )


@pytest.mark.parametrize("make", [swiss_roll, circles])
def test_the_seed_decides(make):
    torch.manual_seed(3)
    first = make(seed=1).train.x
    torch.manual_seed(4)
    assert torch.equal(make(seed=1).train.x, first)
    assert not torch.equal(make(seed=2).train.x, first)


@pytest.mark.parametrize("make", [swiss_roll, circles])
def test_the_validation_size_leaves_the_rest_alone(make):
    assert torch.equal(make(validation=0).test.x, make(validation=7).test.x)
    assert len(make(validation=7).validation) == 7


@pytest.mark.parametrize("make", [swiss_roll, circles])
def test_rejects_a_negative_number_of_points(make):
    with pytest.raises(UserError, match="--validation must not be negative; got -1"):
        make(validation=-1)


def test_roll_anchors_lie_on_the_roll_of_their_seed():
    anchors, train = swiss_roll_anchors(seed=5), swiss_roll(seed=5).train
    turns = (anchors.extras["position"] / (1.5 * math.pi) - 1) / 2
    torch.testing.assert_close(turns, torch.linspace(0.1, 0.9, 4))
    expected = anchors.extras["latent"] @ fitted_map(train)
    torch.testing.assert_close(anchors.x, expected, atol=0.002, rtol=0)


def test_circle_anchors_lie_on_the_circles_of_their_seed():
    anchors, train = circle_anchors(seed=5), circles(seed=5).train
    assert anchors.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert anchors.extras["position"][:3].tolist() == pytest.approx(
        [0, 2 * math.pi / 3, 4 * math.pi / 3]
    )
    expected = anchors.extras["latent"] @ fitted_map(train)
    torch.testing.assert_close(anchors.x, expected, atol=0.01, rtol=0)
