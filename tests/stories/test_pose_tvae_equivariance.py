import math

import pytest
import torch

from pyro_latents.data.affine import rotate
from pyro_latents.stories.pose_tvae.metrics import (
    circular_correlation,
    cluster_accuracy,
    equivariance,
    ink_angle,
)

TURNS = torch.arange(36) * (2 * math.pi / 36)


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (lambda t: t, 1.0),
        (lambda t: t + 2.0, 1.0),
        (lambda t: t + 2 * math.pi * (t > 3), 1.0),
        (lambda t: -t + 1.0, -1.0),
        (lambda t: 2 * t, 0.0),
        (lambda t: torch.zeros_like(t), 0.0),
    ],
    ids=["same", "shifted", "wrapped", "opposed", "doubled", "fixed"],
)
def test_correlation_of_an_angle_with_the_turns(angle, expected):
    assert circular_correlation(TURNS, angle(TURNS)).item() == pytest.approx(expected, abs=1e-5)


def test_correlation_equals_the_definition_by_sines():
    torch.manual_seed(0)
    a = 0.5 * torch.randn(2000)
    b = a + 0.5 * torch.randn(2000)
    a, b = (x - torch.complex(x.cos(), x.sin()).mean().angle() for x in (a, b))
    sines = (a.sin() * b.sin()).mean() / (a.sin().square().mean() * b.sin().square().mean()).sqrt()
    torch.testing.assert_close(circular_correlation(a, b), sines, atol=0.02, rtol=0)


def bars(batch: int = 3) -> torch.Tensor:
    """A dot off the centre: its direction is the angle by which the image was turned."""
    image = torch.zeros(batch, 1, 29, 29)
    image[:, :, 13:16, 22:25] = torch.linspace(1, 0.5, batch)[:, None, None, None]
    return image


def direction(x: torch.Tensor) -> torch.Tensor:
    rows = torch.linspace(1, -1, 29)[:, None]
    columns = torch.linspace(-1, 1, 29)
    return torch.atan2((x * rows).sum((-3, -2, -1)), (x * columns).sum((-3, -2, -1)))


def test_a_pose_that_follows_and_a_reference_that_stays():
    found = equivariance(bars(), lambda x: (direction(x), rotate(x, -direction(x))))
    assert found.within > 0.999
    assert found.pooled > 0.999
    assert found.reference_change < 0.2 * found.input_change


def test_a_pose_that_stays_and_a_reference_that_follows():
    found = equivariance(bars(), lambda x: (torch.zeros(len(x)), x))
    assert found.within == pytest.approx(0, abs=1e-5)
    assert found.reference_change == found.input_change


def test_references_that_differ_between_images_lower_the_pooled_figure_only():
    offset = torch.tensor([0.0, 2.0, 4.0])
    found = equivariance(bars(), lambda x: (direction(x) + offset, x))
    assert found.within > 0.999
    assert found.pooled < 0.3
    assert found.by_class == ()


def test_references_in_common_within_a_class_are_seen_by_class():
    offset, y = torch.tensor([0.0, 2.0, 0.0, 4.0]), torch.tensor([1, 7, 1, 7])
    found = equivariance(bars(4), lambda x: (direction(x) + offset, x), y)
    first, second = found.by_class
    assert first > 0.999
    assert second < 0.7


def test_changes_are_shares_of_the_difference_between_two_images():
    torch.manual_seed(0)
    images = torch.rand(1000, 1, 9, 9)
    # The reference of a turned image is another image's altogether, that of no turn as well.
    found = equivariance(images, lambda x: (torch.zeros(len(x)), torch.rand_like(x)))
    assert found.reference_change == pytest.approx(36 / 35, abs=0.01)


def test_the_axis_of_the_ink_turns_with_the_image_and_points_to_its_longer_end():
    image = torch.zeros(1, 1, 29, 29)
    image[..., 14, 8:27] = 1.0
    image[..., 11:18, 8:11] = 1.0  # a hammer: its head is heavy, its handle reaches further
    angles = torch.tensor([0.0, 1.0, 2.5, 4.0, 5.5])
    turned = rotate(image.expand(5, 1, 29, 29), angles)
    found = torch.remainder(ink_angle(turned) - angles + math.pi, 2 * math.pi) - math.pi
    torch.testing.assert_close(found, torch.zeros(5), atol=0.03, rtol=0)
    assert ink_angle(torch.zeros(1, 1, 5, 5)).isfinite()


def test_clusters_are_named_so_that_most_points_are_right():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(40)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    codes = centres[labels] + torch.randn(120, 2, generator=generator)
    assert cluster_accuracy(codes, labels) == 100
    assert cluster_accuracy(codes, 7 - 3 * labels) == 100  # classes by any other numbers
    # Two of the three classes lie at one place: half of their points are in the other's cluster.
    noise = torch.randn(120, 2, generator=generator)
    mixed = cluster_accuracy(centres[labels.clamp(max=1)] + noise, labels)
    assert 60 < mixed < 85
