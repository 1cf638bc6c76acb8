"""Batches with sets of labelled points of one class (Feige, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_latents.data.batches import Plain, mixed_seed
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.nets.sets import Pool

LABELLED = "give y beside x in an .npz, or a folder of images for each class."


@dataclass(frozen=True)
class ClassTable:
    """Labelled points sorted by class, to draw members of a class without a search.

    Args:
        examples: The labelled points.
        num_classes: The number of classes.

    Raises:
        UserError: if there are no labels, or a class has fewer than two points.
    """

    examples: Examples
    num_classes: int

    def __post_init__(self) -> None:
        if self.examples.y is None:
            raise UserError(
                f"complementary sets are drawn from classes: these data have no labels; {LABELLED}"
            )
        for label, count in enumerate(self.counts.tolist()):
            if count < 2:
                raise UserError(
                    f"class {label} has {count or 'no'} labelled example{'s' * (not count)}: a "
                    "complementary set needs another one of the same class. Give more labels."
                )

    @property
    def y(self) -> Tensor:
        """The class of each point, of shape `n`."""
        assert self.examples.y is not None
        return self.examples.y

    @cached_property
    def counts(self) -> Tensor:
        """The number of points in each class, of shape `classes`."""
        return torch.bincount(self.y, minlength=self.num_classes)

    @cached_property
    def largest(self) -> int:
        """The number of points in the largest class."""
        return int(self.counts.max())

    @cached_property
    def smallest(self) -> int:
        """The number of points in the smallest class."""
        return int(self.counts.min())

    @cached_property
    def order(self) -> Tensor:
        """The indices of all points, class by class."""
        return torch.argsort(self.y, stable=True)

    @cached_property
    def offsets(self) -> Tensor:
        """Where each class begins in ``order``, of shape `classes`."""
        return self.counts.cumsum(0) - self.counts

    def members(self, y: Tensor, m: int, generator: torch.Generator) -> Tensor:
        """Draw `m` points of each of the classes `y`, independent of one another.

        Returns indices of shape `len(y) m`. Of a class of thousands, hardly one comes twice.
        """
        # In double precision, no draw is rounded up to the bound.
        u = torch.rand(len(y), m, generator=generator, device=y.device, dtype=torch.float64)
        place = (u * self.counts[y][:, None]).long()
        return self.order[self.offsets[y][:, None] + place]

    def of_each_class(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw points of each class, none of them twice.

        Returns indices of shape `classes size`, and which of them are there: a class with fewer
        points than that has all of them, and its first one in the places that are left.
        """
        keys = torch.rand(
            self.num_classes, self.largest, generator=generator, device=self.y.device
        )
        missing = torch.arange(self.largest, device=self.y.device) >= self.counts[:, None]
        # The smallest of independent keys are a choice without replacement.
        keys, places = keys.masked_fill(missing, 2.0).topk(size, largest=False)
        there = keys < 2.0
        return self.order[self.offsets[:, None] + places * there], there

    def complements(
        self, index: Tensor, drawn: Tensor, there: Tensor, m_max: int, generator: torch.Generator
    ) -> Tensor:
        """Draw a complementary set for each point, of the points drawn of each class.

        Its size is uniform on `1..m_max`, or up to the number of others of its class where there
        are fewer. Its members are uniform without replacement among these others: the drawn ones
        are, and of them the set, the point itself left out.

        Args:
            index: The points, of shape `batch`.
            drawn: Points of each class, of shape `classes size`, from `of_each_class`; at least
                `m_max + 1` of each, or all.
            there: Which of these are there, of the same shape.
            m_max: The largest set.
            generator: The source of the draws.

        Returns:
            What each drawn point counts in the mean of each set, of shape `batch classes*size`.
        """
        y = self.y[index]
        keys, u = torch.rand(
            len(index), drawn.shape[1] + 1, generator=generator, device=y.device
        ).split([drawn.shape[1], 1], dim=1)
        keys = keys.masked_fill((drawn[y] == index[:, None]) | ~there[y], 2.0)
        most = (self.counts[y] - 1).clamp_max(m_max)[:, None]
        # A draw that is rounded up to the bound is not counted as one more.
        m = 1 + (u * most).long().clamp_max(most - 1)
        shares = (keys.argsort(1).argsort(1) < m) / m
        of_class = y[:, None] == torch.arange(self.num_classes, device=y.device)
        return (of_class[:, :, None] * shares[:, None, :]).flatten(1)


@dataclass(frozen=True)
class Complementary(Plain):
    """Labelled points to train on, each with a complementary set: ``(x, y, sets)``.

    The sets of a batch share their members, a `Pool` that is drawn anew for each batch from all
    labelled points of each class, not from those that happen to be in the batch: there is no class
    with too few of them, and no shape depends on the draws. Set by set, size and members have the
    law of sets that are drawn one by one; sets of one batch are not independent of one another.

    Args:
        examples: The points that an index refers to, those of the table.
        table: The labelled points, sorted by class.
        m_max: The largest set; see `ClassTable.complements` on its size.
        pool: Points of each class that sets are drawn from: at least `m_max + 1` are, and no more
            than there are.
    """

    table: ClassTable
    m_max: int
    pool: int = 10

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        """Points of shape `batch *x_shape`, their classes, and the sets, a `Pool`."""
        drawn, there = self._drawn(generator)
        shares = self.table.complements(index, drawn, there, self.m_max, generator)
        points = self.table.examples.x
        return points[index], self.table.y[index], Pool(points[drawn.flatten()], shares)

    def _drawn(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size = min(max(self.pool, self.m_max + 1), self.table.largest)
        return self.table.of_each_class(size, generator)


@dataclass(frozen=True)
class WithSets(Plain):
    """Points that are not trained on, with sets of labelled ones: ``(x, y, sets)``.

    Args:
        examples: The points that an index refers to.
        table: The labelled points that sets are drawn from.
        m: The size of a set.
    """

    table: ClassTable
    m: int

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Points of shape `batch *x_shape`, their classes, and sets `batch m *x_shape`."""
        assert self.examples.y is not None
        y = self.examples.y[index]
        chosen = self.table.members(y, self.m, generator)
        return self.examples.x[index], y, self.table.examples.x[chosen]


@dataclass(frozen=True)
class OfClass(Plain):
    """Points that are taken to be of one class: ``(x, y)``, y the ``label`` for all."""

    label: int

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Points of shape `batch *x_shape`, and the class, `batch` times."""
        return self.examples.x[index], torch.full_like(index, self.label)


@dataclass(frozen=True)
class WithClassSets(Plain):
    """Unlabelled points with one set a class: ``(x, class_sets)``.

    The labels of the examples are not looked at.

    Args:
        examples: The points that an index refers to.
        table: The labelled points that sets are drawn from.
        m: The size of a set; where the smallest class has fewer, all have as few.
    """

    table: ClassTable
    m: int

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Points of shape `batch *x_shape`, and sets `classes m *x_shape`."""
        drawn, _ = self.table.of_each_class(min(self.m, self.table.smallest), generator)
        return self.examples.x[index], self.table.examples.x[drawn]


@dataclass(frozen=True)
class Mixed(Complementary):
    """Unlabelled and labelled points together: ``(x, class_sets, x_labelled, y_labelled, sets)``.

    Every unlabelled point brings along labelled ones that never change, as many as are needed
    for each labelled point to be brought along, and each equally often but for one: so an epoch
    of the unlabelled points shows every labelled one. All sets are of one pool: those of labelled
    points are complementary, and the set of a class is all of the pool that is of it: with a pool
    as large as the classes, all labelled points. The examples are the unlabelled points.
    """

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        """Make a batch of both kinds, with sets for the classes and for the labelled points."""
        labelled = self.table.examples.x
        rounds = -(-len(labelled) // len(self.examples))
        steps = len(self.examples) * torch.arange(rounds, device=index.device)
        brought = (index[:, None] + steps).flatten() % len(labelled)
        drawn, there = self._drawn(generator)
        members = labelled[drawn.flatten()]
        classes = torch.eye(self.table.num_classes, device=index.device)[:, :, None]
        of_class = (classes * there / there.sum(1, keepdim=True)).flatten(1)
        shares = self.table.complements(brought, drawn, there, self.m_max, generator)
        class_sets, sets = Pool(members, of_class), Pool(members, shares)
        return self.examples.x[index], class_sets, labelled[brought], self.table.y[brought], sets


def balanced_labels(examples: Examples, labels: int, num_classes: int, *, seed: int) -> Tensor:
    """Choose the points whose labels are known, equally many of each class.

    What the classes cannot share equally goes one each to the first of them. The choice is a
    function of the seed, on every device. Returned are the indices of the points, ascending.

    Raises:
        UserError: if there are no labels, or a class has too few points.
    """
    if examples.y is None:
        raise UserError(
            f"labelled points are chosen by class: these data have no labels; {LABELLED}"
        )
    y = examples.y.cpu()
    generator = torch.Generator().manual_seed(mixed_seed(seed, labels))
    order = torch.randperm(len(y), generator=generator)
    # A stable sort keeps the random order within each class.
    order = order[torch.argsort(y[order], stable=True)]
    counts = torch.bincount(y, minlength=num_classes)
    wanted = labels // num_classes + (torch.arange(num_classes) < labels % num_classes).long()
    for label in torch.nonzero(counts < wanted)[:, 0].tolist():
        raise UserError(
            f"--labels {labels} asks for {wanted[label]} examples of class {label}, which has "
            f"{counts[label]}: give fewer labels."
        )
    place = torch.arange(len(y)) - (counts.cumsum(0) - counts)[y[order]]
    return order[place < wanted[y[order]]].sort().values.to(examples.device)


def without(examples: Examples, index: Tensor, multiple_of: int = 1) -> Examples:
    """The points other than those at ``index``, without labels.

    Their number is cut down to a multiple of ``multiple_of``, from the end.
    """
    kept = torch.ones(len(examples), dtype=torch.bool, device=examples.device)
    kept[index] = False
    rest = torch.nonzero(kept)[:, 0]
    rest = rest[: len(rest) // multiple_of * multiple_of]
    return Examples(examples.x[rest], provenance=examples.provenance)
