import math

import torch

from pyro_latents.data.affine import rotate
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.stories.vaells.images import RotatedWithAnchors, evenly_turned
from pyro_latents.stories.vaells.recipes import RECIPES, Labelled

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_labelled_points_come_with_their_class():
    maker = Labelled(Examples(IMAGES, torch.arange(5)))
    x, y = maker(torch.tensor([3, 1]), torch.Generator())
    assert torch.equal(x, IMAGES[[3, 1]])
    assert y.tolist() == [3, 1]


def test_points_without_labels_come_alone():
    assert len(Labelled(Examples(IMAGES))(torch.tensor([0]), torch.Generator())) == 1


def test_anchors_are_even_turns_from_upright():
    turned = evenly_turned(IMAGES, 4)
    assert turned.shape == (5, 4, 1, 28, 28)
    assert torch.allclose(turned[:, 0], IMAGES, atol=1e-5)
    quarter = rotate(IMAGES, torch.full((5,), math.pi / 2))
    assert torch.allclose(turned[:, 1], quarter, atol=1e-5)


def test_each_image_has_its_own_anchors_and_a_fresh_angle():
    maker = RotatedWithAnchors(Examples(IMAGES), num_anchors=3)
    index = torch.tensor([2, 0])
    x, y, anchors = maker(index, torch.Generator().manual_seed(1))
    again = maker(index, torch.Generator().manual_seed(2))[0]
    assert torch.allclose(anchors[:, 0], IMAGES[index], atol=1e-5)
    assert not torch.allclose(x, again)
    assert y.tolist() == [0, 0]


def test_turned_images_are_kept_where_angles_are_not_fresh():
    examples = Examples(IMAGES, torch.arange(5), {"upright": IMAGES.flip(-1)})
    maker = RotatedWithAnchors(examples, num_anchors=2, fresh=False)
    x, _, anchors = maker(torch.tensor([4]), torch.Generator())
    assert torch.equal(x, IMAGES[4:])
    assert torch.allclose(anchors[:, 0], IMAGES[4:].flip(-1), atol=1e-5)


def test_angles_are_fresh_in_the_batches_of_training_alone():
    examples = Examples(IMAGES, torch.arange(5), {"upright": IMAGES})
    splits = Splits(examples, examples, examples, "made up")
    story = RECIPES["vaells-rotated-digits"]
    kept = {}
    for split in ("train", "validation", "test"):
        maker = story.build_batches(split, splits)
        x = maker(torch.arange(5), torch.Generator().manual_seed(0))[0]
        kept[split] = torch.equal(x, IMAGES)
    assert kept == {"train": False, "validation": True, "test": True}
