import math

import pytest
import torch

from pyro_latents.data.affine import affine_matrix, move, rotate


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


EYE = torch.eye(2, dtype=torch.float64)


@pytest.mark.parametrize("size", [(5, 5), (6, 6), (5, 8)], ids=["odd", "even", "oblong"])
def test_identity_gives_the_image_back(size):
    images = noise(2, 3, *size)
    torch.testing.assert_close(move(images, EYE), images, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [5, 6], ids=["odd", "even"])
def test_a_quarter_turn_is_counter_clockwise_and_exact(size):
    # Exact at the very edge only if -1 and 1 are the outer edges of the frame.
    images = noise(2, 1, size, size)
    turned = rotate(images, torch.tensor(math.pi / 2, dtype=torch.float64))
    torch.testing.assert_close(turned, torch.rot90(images, 1, dims=(2, 3)), atol=1e-12, rtol=0)


def test_translation_is_right_and_up_in_pixels():
    images = noise(1, 1, 6, 5)
    moved = move(images, EYE, torch.tensor([1.0, 2.0], dtype=torch.float64))
    expected = torch.zeros_like(images)
    expected[..., :4, 1:] = images[..., 2:, :4]
    torch.testing.assert_close(moved, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("width", [7, 8], ids=["odd", "even"])
def test_bilinear_between_pixels(width):
    images = noise(1, 1, 4, width)
    moved = move(images, EYE, torch.tensor([0.25, 0.0], dtype=torch.float64))
    expected = 0.75 * images
    expected[..., 1:] += 0.25 * images[..., :-1]
    torch.testing.assert_close(moved, expected, atol=1e-12, rtol=0)


def test_a_larger_canvas_has_the_same_centre():
    images = noise(2, 1, 28, 28)
    padded = torch.nn.functional.pad(images, (6, 6, 6, 6))
    torch.testing.assert_close(move(images, EYE, size=(40, 40)), padded, atol=1e-12, rtol=0)
    matrix = affine_matrix(noise(2), noise(2) - 0.5, 0.5 + noise(2, 2))
    torch.testing.assert_close(
        move(images, matrix, size=(40, 40)), move(padded, matrix), atol=1e-9, rtol=0
    )


def test_matrix_rotates_then_shears_then_scales():
    angle, shear, scale = noise(3), noise(3) - 0.5, 0.5 + noise(3, 2)
    for i, matrix in enumerate(affine_matrix(angle, shear, scale)):
        cos, sin = math.cos(angle[i]), math.sin(angle[i])
        turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        slope = torch.tensor([[1, 0], [shear[i], 1]], dtype=torch.float64)
        torch.testing.assert_close(matrix, torch.diag(scale[i]) @ slope @ turn)


def test_ink_goes_where_the_map_says():
    images = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    images[..., 6:9, 12:15] = 1
    matrix = affine_matrix(torch.tensor(0.4), torch.tensor(0.2), torch.tensor([1.2, 0.9]))
    matrix, translation = matrix.double(), torch.tensor([-1.5, 2.0], dtype=torch.float64)
    moved = move(images, matrix, translation)[0, 0]
    axis = torch.arange(21.0, dtype=torch.float64) - 10
    centre = torch.stack([(moved.sum(0) * axis).sum(), -(moved.sum(1) * axis).sum()]) / moved.sum()
    expected = matrix @ torch.tensor([3.0, 3.0], dtype=torch.float64) + translation
    torch.testing.assert_close(centre, expected, atol=0.1, rtol=0)


def test_leading_dimensions_broadcast():
    images, angles = noise(3, 2, 6, 6), noise(3, 4)
    views = rotate(images.unsqueeze(1), angles)
    assert views.shape == (3, 4, 2, 6, 6)
    torch.testing.assert_close(views[1, 2], rotate(images[1], angles[1, 2]))


def test_pixels_stay_in_the_unit_interval():
    white = torch.ones(50, 1, 28, 28)
    turned = rotate(white, torch.linspace(0, 6, 50))
    assert 0 <= float(turned.min())
    assert float(turned.max()) <= 1
