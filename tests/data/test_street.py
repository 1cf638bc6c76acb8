import pytest
import torch

from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.street import BRIGHTNESS, DRAWS, SHAPE, house_numbers, street_splits

# A square of ink in the middle of each digit.
DIGIT = torch.zeros(1, 28, 28)
DIGIT[:, 8:20, 10:18] = 1.0
# No turn, no shear, the middle of all ranges.
MIDDLE = torch.full((1, DRAWS), 0.5)


def digits(number: int) -> Examples:
    x = torch.rand(number, 1, 28, 28, generator=torch.Generator().manual_seed(number))
    return Examples(x, torch.arange(number) % 10, provenance="noise")


def drawn(**changes: float) -> torch.Tensor:
    """One image without light or noise, a dark wall and no neighbours but for the changes."""
    numbers = MIDDLE.clone()
    numbers[:, 7:9] = 1.0
    numbers[:, 9:12] = 0.1
    for column, value in changes.items():
        numbers[:, int(column.removeprefix("n"))] = value
    light, noise = torch.zeros(1, 3, 4, 4), torch.zeros(1, *SHAPE)
    return house_numbers(DIGIT.expand(1, 3, 1, 28, 28), numbers, light, noise)[0]


def splits(number: int = 12) -> Splits:
    return Splits(digits(number), digits(0), digits(number + 1), 10)


def test_images_have_the_shape_of_svhn_and_the_labels_of_the_digits():
    made = street_splits(splits())
    assert made.train.x.shape == (12, *SHAPE)
    assert made.validation.x.shape == (0, *SHAPE)
    torch.testing.assert_close(made.test.y, splits().test.y)
    assert 0 <= made.train.x.min() < made.train.x.max() <= 1
    assert made.train.provenance == "noise, as coloured house numbers (no SVHN)"


def test_the_same_seed_makes_the_same_images_and_splits_have_draws_of_their_own():
    one, again, other = (
        street_splits(splits()),
        street_splits(splits()),
        street_splits(splits(), seed=1),
    )
    torch.testing.assert_close(one.train.x, again.train.x, rtol=0, atol=0)
    assert not torch.equal(one.train.x, other.train.x)
    assert not torch.equal(one.train.x, one.test.x[:12])


def test_a_digit_without_neighbours_stands_in_the_middle():
    image = drawn()
    wall, ink = image[:, 0, 0], image[:, 16, 16]
    torch.testing.assert_close(image[:, :, :4], wall[:, None, None].expand(-1, 32, 4))
    torch.testing.assert_close(image, image.flip(-1), atol=1e-5, rtol=0)
    brightness = torch.tensor(BRIGHTNESS)
    assert brightness @ ink - brightness @ wall == pytest.approx(0.475, abs=1e-5)  # mid-contrast


@pytest.mark.parametrize(
    ("column", "beside", "free"),
    [(7, slice(0, 4), slice(28, 32)), (8, slice(28, 32), slice(0, 4))],
)
def test_a_neighbour_stands_on_its_side(column, beside, free):
    alone, image = drawn(), drawn(**{f"n{column}": 0.0})
    assert (image - alone)[..., beside].abs().max() > 0.3
    torch.testing.assert_close(image[..., free], alone[..., free])


def test_ink_is_darker_on_a_light_wall():
    image = drawn(n9=0.9, n10=0.9, n11=0.9)
    assert (image[:, 16, 16] < image[:, 0, 0]).all()


def test_light_is_uneven_and_noise_is_small():
    light = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.ones(1, *SHAPE)
    args = DIGIT.expand(1, 3, 1, 28, 28), MIDDLE
    flat = house_numbers(*args, torch.zeros_like(light), torch.zeros_like(noise))
    lit = house_numbers(*args, light, torch.zeros_like(noise))
    noisy = house_numbers(*args, torch.zeros_like(light), noise)
    assert lit[0, :, 0].std() > 0.03
    assert flat[0, 0, 0].std() == 0
    torch.testing.assert_close((noisy - flat).mean(), torch.tensor(0.02), atol=1e-4, rtol=0)
