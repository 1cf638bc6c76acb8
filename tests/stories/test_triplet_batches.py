from math import degrees

import pytest
import torch

from pyro_latents.data.affine import move
from pyro_latents.data.batches import Batches
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.stories.triplet_tvae import batches as triplet_batches
from pyro_latents.stories.triplet_tvae.batches import (
    SCALE,
    AffineRanges,
    Framed,
    Pixelations,
    Triplets,
    composed,
    inverse,
    pixelated,
    views,
)

MAKERS = {
    "triplets": (Triplets, 3),
    "framed": (Framed, 1),
    "views": (lambda e: Pixelations(e, num_views=3), 4),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_images(size, pixels=28):
    """A few wide bumps each, well inside of the image."""
    grid = torch.linspace(-1, 1, pixels)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    centre = 0.4 * torch.rand(size, 3, 2, generator=generator(1)) - 0.2
    gap = (x - centre[..., :1, None]).square() + (y - centre[..., 1:, None]).square()
    return torch.exp(-gap / (2 * 0.25**2)).mean(1, keepdim=True)


@pytest.fixture
def examples():
    return Examples(smooth_images(40))


def test_the_second_view_is_under_the_inverse_of_the_first(examples):
    ranges = AffineRanges(crop=1.0)
    there = ranges.draw_maps(40, generator())
    x1, x2 = views(examples.x, there, ranges, generator())
    # What undoes a view gives the image back, up to the resampling of pixels twice.
    inner = (..., slice(4, -4), slice(4, -4))
    for view, undo in ((x1, inverse(there)), (x2, there)):
        back = move(view, *undo)
        assert (back - examples.x)[inner].abs().mean() < 0.005
        assert (back - examples.x)[inner].abs().max() < 0.05
        assert (view - examples.x)[inner].abs().mean() > 0.02


def test_the_inverse_composes_to_the_identity_from_both_sides(float64):
    there = AffineRanges(angle=90, shear=0.5, shift=5).draw_maps(100, generator())
    for both in (composed(there, inverse(there)), composed(inverse(there), there)):
        torch.testing.assert_close(both[0], torch.eye(2).expand(100, 2, 2))
        torch.testing.assert_close(both[1], torch.zeros(100, 2))


def test_composition_is_one_map_after_the_other(examples):
    ranges = AffineRanges(angle=20, shift=1)
    first, then = ranges.draw_maps(40, generator(1)), ranges.draw_maps(40, generator(2))
    once = move(examples.x, *composed(first, then))
    twice = move(move(examples.x, *first), *then)
    assert (once - twice).abs().mean() < 0.01


@pytest.fixture
def unscaled(monkeypatch):
    monkeypatch.setattr(triplet_batches, "SCALE", 1.0)


@pytest.mark.usefixtures("unscaled")
def test_the_angles_are_those_of_the_range():
    linear, _ = AffineRanges(angle=30, shear=0).draw_maps(5000, generator())
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
    assert degrees(angle.abs().max()) == pytest.approx(30, abs=0.1)
    assert degrees(angle.mean()) == pytest.approx(0, abs=1)


def test_a_crop_blows_a_window_inside_the_image_up_to_its_size():
    linear, shift = AffineRanges(crop=0.5).draw_crops((1000,), generator(), image_size=(28, 20))
    corners = torch.tensor([[-10.0, -14.0], [10.0, 14.0]])  # of the result, in pixels
    window = (corners - shift[:, None]) / linear[:, :1, 0, None]
    side = window[:, 1] - window[:, 0]
    assert (window[..., 0].abs() <= 10 + 1e-4).all()
    assert (window[..., 1].abs() <= 14 + 1e-4).all()
    assert side[:, 1].min() == pytest.approx(14, abs=0.1)
    assert side[:, 1].max() == pytest.approx(28, abs=0.1)


@pytest.mark.usefixtures("unscaled")
def test_the_two_views_are_cropped_apart(examples):
    none = AffineRanges(angle=0, shear=0, shift=0, crop=0.8)
    _, x1, x2 = Triplets(examples, none)(torch.arange(40), generator())
    assert (x1 - x2).abs().mean() > 0.01


@pytest.mark.usefixtures("unscaled")
def test_without_ranges_all_members_are_the_image(examples):
    none = AffineRanges(angle=0, shear=0, shift=0, crop=1)
    for member in Triplets(examples, none)(torch.arange(40), generator()):
        torch.testing.assert_close(member, examples.x, atol=1e-5, rtol=0)


def test_the_frame_is_that_of_all_members(examples):
    ranges = AffineRanges(angle=0, shear=0, shift=0, crop=1, shrink=0.5)
    ink = examples.x.sum((-3, -2, -1))
    for member in Triplets(examples, ranges)(torch.arange(40), generator()):
        ratio = member.sum((-3, -2, -1)) / ink
        assert (ratio < 0.25 * SCALE**2 + 0.02).all()
        assert (ratio > 0.25 / SCALE**2 - 0.02).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_has_images_in_the_unit_interval_and_one_shape(name, examples):
    make, members = MAKERS[name]
    batch = make(examples)(torch.tensor([3, 1, 5]), generator())
    assert len(batch) == members
    for member in batch:
        assert member.shape == (3, 1, 28, 28)
        assert member.dtype == torch.float32
        assert 0 <= member.min() <= member.max() <= 1


@pytest.mark.parametrize("name", MAKERS)
def test_all_randomness_comes_from_the_generator(name, examples):
    make, members = MAKERS[name]
    state = torch.get_rng_state()
    one, same, other = (make(examples)(torch.arange(9), generator(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert members == 1 or not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", MAKERS)
def test_makers_feed_epochs(name, examples):
    make, members = MAKERS[name]
    batches = list(Batches(make(examples), 16, seed=0))
    assert [len(batch) for batch in batches] == [members] * 3
    assert sum(len(batch[0]) for batch in batches) == 40


def test_a_pixelation_is_constant_on_blocks_and_keeps_their_means():
    x = torch.rand(6, 1, 28, 28)
    view = pixelated(x, 4)
    blocks = view.unflatten(-1, (7, 4)).unflatten(-3, (7, 4))
    assert (blocks == blocks[..., :1, :, :1]).all()
    torch.testing.assert_close(view.mean((-1, -2)), x.mean((-1, -2)))


def test_a_pixelation_of_any_block_keeps_the_shape():
    assert pixelated(torch.rand(2, 1, 28, 30), 5).shape == (2, 1, 28, 30)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"angle": -1}, "must not be negative"),
        ({"crop": 0.0}, "in .0, 1.; got 0.0"),
        ({"shrink": 0.0}, "in .0, 1.; got 0.0"),
    ],
)
def test_rejects_ranges_that_are_none(ranges, message):
    with pytest.raises(UserError, match=message):
        AffineRanges(**ranges).check_ranges()
