import pytest
import torch

from pyro_latents.data.batches import Batches
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.stories.equivae.batches import (
    ClassTable,
    Complementary,
    Mixed,
    OfClass,
    WithClassSets,
    balanced_labels,
    drawn_size,
    without,
)

CLASSES = 3


def numbered(size: int = 30) -> Examples:
    """Points whose value is their index, of classes in a random order."""
    y = torch.randperm(size) % CLASSES
    return Examples(torch.arange(float(size)), y)


def table(examples: Examples | None = None) -> ClassTable:
    return ClassTable(examples or numbered(), CLASSES)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_complementary_set_is_of_the_class_and_without_the_point():
    table = ClassTable(numbered(), CLASSES)
    maker = Complementary(table.examples, table, m_max=7)
    for number in range(20):
        index = torch.randint(30, (50,))
        x, y, sets = maker(index, generator().manual_seed(number))
        members = sets.long()
        assert torch.equal(x.long(), index)
        assert (table.examples.y[members] == y[:, None]).all()
        assert (members != index[:, None]).all()


def test_every_other_point_of_the_class_is_drawn_equally_often():
    members = ClassTable(Examples(torch.arange(6.0), torch.tensor([0, 1, 0, 0, 1, 0])), 2)
    index = torch.full((40_000,), 2)
    drawn = members.complements(index, 1, generator()).flatten()
    counts = torch.bincount(drawn, minlength=6).double() / 40_000
    expected = torch.tensor([1 / 3, 0, 0, 1 / 3, 0, 1 / 3]).double()
    torch.testing.assert_close(counts, expected, atol=0.01, rtol=0)


def test_the_size_of_a_set_is_uniform_and_the_same_within_a_batch():
    examples = numbered(300)
    batches = Batches(Complementary(examples, table(examples), m_max=3), 1, seed=0)
    sizes = torch.tensor([sets.shape[1] for _, _, sets in batches])
    shares = torch.bincount(sizes, minlength=4) / len(sizes)
    assert shares[0] == 0
    assert (shares[1:] - 1 / 3).abs().max() < 0.1


class OnDevice:
    """A generator of an accelerator, of which nothing is drawn."""

    def initial_seed(self) -> int:
        return 5


def test_the_size_of_a_set_is_known_without_the_device():
    assert drawn_size(7, OnDevice()) == drawn_size(7, torch.Generator().manual_seed(5))


def test_sets_for_points_from_elsewhere_come_from_the_labelled_ones():
    labelled = numbered()
    others = Examples(torch.arange(100.0, 110.0), torch.arange(10) % CLASSES)
    maker = Complementary(others, table(labelled), m_max=4, own=False)
    x, y, sets = maker(torch.arange(10), generator())
    assert sets.shape == (10, 4)
    assert (labelled.y[sets.long()] == y[:, None]).all()


def test_there_is_one_set_a_class_for_unlabelled_points():
    labelled = numbered()
    x, class_sets = WithClassSets(numbered(9), table(labelled), 5)(torch.arange(4), generator())
    assert x.shape == (4,)
    assert torch.equal(labelled.y[class_sets.long()], torch.arange(CLASSES)[:, None].expand(-1, 5))


@pytest.mark.parametrize(("labels", "points"), [(12, 40), (12, 7)], ids=["fewer", "more"])
def test_an_epoch_shows_every_labelled_point_evenly(labels, points):
    labelled, unlabelled = numbered(labels), Examples(torch.arange(100.0, 100.0 + points))
    seen = []
    for x, class_sets, x_labelled, y, sets in Batches(
        Mixed(unlabelled, table(labelled), 4), 5, seed=0
    ):
        assert len(class_sets) == CLASSES
        assert len(x_labelled) == len(sets) == len(y) >= len(x)
        assert torch.equal(labelled.y[x_labelled.long()], y)
        assert (sets != x_labelled[:, None]).all()
        seen.append(x_labelled)
    counts = torch.bincount(torch.cat(seen).long(), minlength=labels)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


def test_points_of_a_supposed_class():
    x, y = OfClass(numbered(), 2)(torch.tensor([5, 1]), generator())
    assert (x.tolist(), y.tolist()) == ([5.0, 1.0], [2, 2])


def test_labels_are_balanced_and_follow_the_seed():
    examples = numbered(60)
    index = balanced_labels(examples, 13, CLASSES, seed=1)
    assert torch.bincount(examples.y[index]).tolist() == [5, 4, 4]
    assert torch.equal(index, balanced_labels(examples, 13, CLASSES, seed=1))
    assert not torch.equal(index, balanced_labels(examples, 13, CLASSES, seed=2))


def test_the_others_are_unlabelled():
    examples, index = numbered(60), torch.tensor([3, 50])
    rest = without(examples, index)
    assert rest.y is None
    assert sorted([*rest.x.tolist(), 3.0, 50.0]) == list(range(60))
    assert torch.equal(without(examples, index, multiple_of=20).x, rest.x[:40])


ERRORS = {
    "one": (torch.tensor([0, 0, 1, 2, 2]), "class 1 has 1 labelled example: a complementary"),
    "none": (torch.tensor([0, 0, 2, 2, 2]), "class 1 has no labelled examples: a complementary"),
    "unlabelled": (None, "these data have no labels"),
}


@pytest.mark.parametrize(("y", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects_classes_without_a_complement(y, message):
    with pytest.raises(UserError, match=message):
        ClassTable(Examples(torch.zeros(5), y), CLASSES)


def test_rejects_more_labels_than_a_class_has():
    with pytest.raises(
        UserError, match="--labels 33 asks for 11 examples of class 0, which has 10"
    ):
        balanced_labels(numbered(), 33, CLASSES, seed=0)


def test_sets_are_drawn_from_the_given_generator_alone():
    examples = numbered()
    maker = Complementary(examples, table(examples), 7)
    torch.manual_seed(1)
    first = maker(torch.arange(9), generator())
    torch.manual_seed(2)
    second = maker(torch.arange(9), generator())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
