from collections import Counter
from itertools import combinations
from math import comb

import pytest
import torch
from scipy.stats import chi2

from pyro_latents.data.batches import Batches
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.nets.sets import Pool
from pyro_latents.stories.equivae.batches import (
    ClassTable,
    Complementary,
    Mixed,
    OfClass,
    WithClassSets,
    WithSets,
    balanced_labels,
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


def members_of(sets: Pool) -> list[torch.Tensor]:
    """The members of each set."""
    return [sets.members[row > 0] for row in sets.shares]


def test_a_complementary_set_is_of_the_class_without_the_point_and_without_copies():
    table = ClassTable(numbered(), CLASSES)
    maker = Complementary(table.examples, table, m_max=7)
    for number in range(20):
        index = torch.randint(30, (50,))
        x, y, sets = maker(index, generator().manual_seed(number))
        assert torch.equal(x.long(), index)
        torch.testing.assert_close(sets.shares.sum(1), torch.ones(50))
        for i, members in enumerate(members_of(sets)):
            assert (table.examples.y[members.long()] == y[i]).all()
            assert index[i] not in members
            assert len(members.unique()) == len(members) == round(1 / sets.shares[i].max().item())


def test_sizes_and_members_have_the_law_of_sets_drawn_one_by_one():
    # A class of six with the point 2, and one of three: the largest set of five others is three.
    y = torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 0])
    examples = Examples(torch.arange(9.0), y)
    maker = Complementary(examples, ClassTable(examples, 2), m_max=3, pool=1)
    index, counts = torch.tensor([2, 2, 4]), Counter()
    draws = 2_000
    source = generator()
    for _ in range(draws):
        sets = maker(index, source)[2]
        assert len(sets.members) == 2 * 4  # one more than the largest set, of each class
        first, _, other = members_of(sets)
        counts[tuple(sorted(first.tolist()))] += 1
        assert set(other.tolist()) <= {1.0, 7.0}
    # Every size is as likely as another, and within it every set of the other five.
    expected = {
        tuple(members): draws / 3 / comb(5, m)
        for m in (1, 2, 3)
        for members in combinations((0.0, 3.0, 5.0, 6.0, 8.0), m)
    }
    assert set(counts) == set(expected)
    statistic = sum((counts[key] - mean) ** 2 / mean for key, mean in expected.items())
    assert statistic < chi2.ppf(0.999, len(expected) - 1)


def test_points_of_one_batch_have_sizes_of_their_own():
    examples = numbered(300)
    maker = Complementary(examples, table(examples), m_max=4)
    shares = maker(torch.arange(300), generator())[2].shares
    sizes = (shares > 0).sum(1)
    assert torch.equal(sizes.unique(), torch.arange(1, 5))
    assert (torch.bincount(sizes)[1:] / 300 - 1 / 4).abs().max() < 0.1


def test_a_class_with_few_points_has_sets_of_at_most_the_others():
    examples = Examples(torch.arange(8.0), torch.tensor([0, 0, 1, 1, 1, 1, 1, 1]))
    maker = Complementary(examples, ClassTable(examples, 2), m_max=4)
    for number in range(20):
        first, *_ = members_of(maker(torch.arange(8), generator().manual_seed(number))[2])
        assert first.tolist() == [1.0]


def test_no_shape_depends_on_the_draws():
    examples = numbered(50)
    maker = Complementary(examples, table(examples), m_max=7)
    shapes = {(sets.members.shape, sets.shares.shape) for x, y, sets in Batches(maker, 5, seed=0)}
    assert shapes == {((3 * 10,), (5, 3 * 10))}


def test_sets_for_points_from_elsewhere_come_from_the_labelled_ones():
    labelled = numbered()
    others = Examples(torch.arange(100.0, 110.0), torch.arange(10) % CLASSES)
    x, y, sets = WithSets(others, table(labelled), 4)(torch.arange(10), generator())
    assert sets.shape == (10, 4)
    assert (labelled.y[sets.long()] == y[:, None]).all()


def test_there_is_one_set_a_class_for_unlabelled_points():
    labelled = numbered()
    x, class_sets = WithClassSets(numbered(9), table(labelled), 5)(torch.arange(4), generator())
    assert x.shape == (4,)
    assert torch.equal(labelled.y[class_sets.long()], torch.arange(CLASSES)[:, None].expand(-1, 5))
    assert all(len(members.unique()) == 5 for members in class_sets)


def test_a_pool_as_large_as_the_classes_gives_each_its_mean_over_all_labelled_points():
    examples = Examples(torch.arange(9.0), torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 0]))
    mixed = Mixed(Examples(torch.zeros(20)), ClassTable(examples, 2), 4)
    for number in range(5):
        _, class_sets, *_, sets = mixed(torch.arange(10), generator().manual_seed(number))
        means = class_sets.shares @ class_sets.members
        expected = torch.stack([examples.x[examples.y == label].mean() for label in range(2)])
        torch.testing.assert_close(means, expected)
        # Both kinds of sets are of the same members, which are encoded once.
        assert sets.members is class_sets.members


@pytest.mark.parametrize(("labels", "points"), [(12, 40), (12, 7)], ids=["fewer", "more"])
def test_an_epoch_shows_every_labelled_point_evenly(labels, points):
    labelled, unlabelled = numbered(labels), Examples(torch.arange(100.0, 100.0 + points))
    seen = []
    for x, class_sets, x_labelled, y, sets in Batches(
        Mixed(unlabelled, table(labelled), 4), 5, seed=0
    ):
        assert len(class_sets.shares) == CLASSES
        assert len(x_labelled) == len(sets.shares) == len(y) >= len(x)
        assert torch.equal(labelled.y[x_labelled.long()], y)
        for point, members in zip(x_labelled, members_of(sets), strict=True):
            assert point not in members
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
    "unlabelled": (None, "these data have no labels; give y beside x"),
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
    *first, sets = maker(torch.arange(9), generator())
    torch.manual_seed(2)
    *second, others = maker(torch.arange(9), generator())
    for a, b in zip([*first, *sets], [*second, *others], strict=True):
        assert torch.equal(a, b)
