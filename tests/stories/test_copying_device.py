"""Batches where moving to a device copies, as on every accelerator."""

import pytest
import torch

from pyro_latents.data.batches import Batches
from pyro_latents.data.sources import load
from pyro_latents.stories.equivae.recipes import RECIPES as EQUIVAE
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.recipes import RECIPES as VAELLS

SIZE = 40


@pytest.fixture(autouse=True)
def _to_copies(monkeypatch):
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda *args, **options: to(*args, **options).clone())


def moved_twice(story, limit_train=None):
    parts = Parts(
        story,
        story.guides[0],
        seed=0,
        load=lambda: load(story.data, validation=story.validation, limit_train=limit_train),
    )
    loaded = parts.splits.train.x
    parts.to("cpu:0").to("cpu")
    assert parts.splits.train.x.data_ptr() != loaded.data_ptr()
    return parts


def epochs(parts, split):
    """The images of the first data points of a split as two epochs show them."""
    batches = Batches(parts.batches(split), SIZE, seed=0, shuffle=False)
    for epoch in range(2):
        batches.set_epoch(epoch)
        yield batches.batch(0)[0]


def test_turned_digits_have_fresh_angles_in_every_epoch():
    parts = moved_twice(VAELLS["vaells-rotated-digits"])
    first, second = epochs(parts, "train")
    assert ((first - second).flatten(1).abs().amax(1) > 0.1).all()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_turned_digits_to_measure_on_keep_their_angles(split):
    parts = moved_twice(VAELLS["vaells-rotated-digits"])
    for images in epochs(parts, split):
        torch.testing.assert_close(images, getattr(parts.splits, split).x[:SIZE], rtol=0, atol=0)


def test_sets_of_training_points_leave_the_point_out():
    parts = moved_twice(EQUIVAE["equivae-digits"], limit_train=60)
    batches = Batches(parts.batches("train"), SIZE, seed=0)
    for epoch in range(10):
        batches.set_epoch(epoch)
        x, _, sets, *_ = batches.batch(0)
        same = (sets.members == x[:, None]).flatten(2).all(-1)
        assert not (same & (sets.shares > 0)).any()
        assert (sets.shares > 0).any(-1).all()
