"""Statistics of images whose value is known."""

import pytest
import torch

from pyro_latents.checks.statistics import IMAGE_STATISTICS, VECTOR_STATISTICS

pytestmark = pytest.mark.usefixtures("float64")


def value(name, image):
    return IMAGE_STATISTICS[name](image[None]).item()


@pytest.fixture
def stroke():
    image = torch.zeros(28, 28)
    image[4:24, 12:14] = 1
    return image


def test_a_vertical_stroke(stroke):
    assert value("ink", stroke) == pytest.approx(40 / 784)
    assert value("centre_x", stroke) == pytest.approx(12.5 - 13.5)
    assert value("centre_y", stroke) == pytest.approx(0)
    assert value("spread", stroke) == pytest.approx(((20**2 - 1) / 12 + 0.25) ** 0.5)
    assert value("elongation", stroke) < -0.9
    assert value("slant", stroke) == pytest.approx(0)
    assert value("asymmetry_y", stroke) == pytest.approx(0)
    assert value("asymmetry_x", stroke) == pytest.approx(80 / 784)


def test_a_diagonal_slants_and_its_mirror_image_slants_back():
    image = torch.eye(28)
    assert value("slant", image) == pytest.approx(0.5)
    assert value("slant", image.flip(-1)) == pytest.approx(-0.5)


def test_blurring_lowers_the_edge_energy(stroke):
    blurred = torch.nn.functional.avg_pool2d(stroke[None, None], 3, 1, 1)[0, 0]
    assert value("edge_energy", blurred) < value("edge_energy", stroke)


@pytest.mark.parametrize(("holes", "pieces", "expected"), [(0, 1, 1), (1, 1, 0), (2, 1, -1)])
def test_pieces_less_holes(holes, pieces, expected):
    image = torch.zeros(28, 28)
    image[2:26, 2:26] = 1
    for i in range(holes):
        image[5 + 8 * i : 9 + 8 * i, 6:12] = 0
    assert value("euler_number", image) == expected


def test_two_pieces():
    image = torch.zeros(28, 28)
    image[2:6, 2:6] = image[10:15, 10:20] = 1
    assert value("euler_number", image) == 2


@pytest.mark.parametrize("statistics", [IMAGE_STATISTICS, VECTOR_STATISTICS])
def test_any_leading_dimensions(statistics):
    shape = (1, 9, 9) if statistics is IMAGE_STATISTICS else (7,)
    x = torch.rand(3, 4, *shape)
    for statistic in statistics.values():
        found = statistic(x)
        assert found.shape == (3, 4)
        torch.testing.assert_close(found[2, 1], statistic(x[2, 1][None])[0])


def test_an_empty_image_is_finite():
    for statistic in IMAGE_STATISTICS.values():
        assert torch.isfinite(statistic(torch.zeros(2, 1, 28, 28))).all()
