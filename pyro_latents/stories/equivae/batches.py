"""Batches with sets of labelled points of one class (Feige, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyro_latents.data.batches import Plain, mixed_seed
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError


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
                "complementary sets are drawn from classes: these data have no labels."
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
    def order(self) -> Tensor:
        """The indices of all points, class by class."""
        return torch.argsort(self.y, stable=True)

    @cached_property
    def offsets(self) -> Tensor:
        """Where each class begins in ``order``, of shape `classes`."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def places(self) -> Tensor:
        """The place of each point within its class, of shape `n`."""
        return torch.argsort(self.order) - self.offsets[self.y]

    def complements(self, index: Tensor, m: int, generator: torch.Generator) -> Tensor:
        """Draw `m` other points of the class of each point, independent of one another.

        Returns indices of shape `len(index) m`; none of row i is ``index[i]``.
        """
        y = self.y[index][:, None]
        place = _below(self.counts[y] - 1, m, generator)
        # Draws among all but one, with those from its place on moved up by one.
        place = place + (place >= self.places[index][:, None])
        return self.order[self.offsets[y] + place]

    def members(self, y: Tensor, m: int, generator: torch.Generator) -> Tensor:
        """Draw `m` points of each of the classes `y`: indices of shape `len(y) m`."""
        place = _below(self.counts[y][:, None], m, generator)
        return self.order[self.offsets[y][:, None] + place]

    def of_each_class(self, m: int, generator: torch.Generator) -> Tensor:
        """Draw the points of one set a class, of shape `classes m *x_shape`."""
        classes = torch.arange(self.num_classes, device=self.examples.device)
        return self.examples.x[self.members(classes, m, generator)]


@dataclass(frozen=True)
class Complementary(Plain):
    """Labelled points, each with a complementary set: ``(x, y, sets)``.

    Args:
        examples: The points that an index refers to.
        table: The labelled points that sets are drawn from.
        m_max: The largest set. In training its size is uniform on `1..m_max`, one draw a batch.
        own: Whether the examples are the points of the table, which a set must then leave out;
            if not, sets have `m_max` members.
    """

    table: ClassTable
    m_max: int
    own: bool = True

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Points of shape `batch *x_shape`, their classes, and sets `batch m *x_shape`."""
        y = self.examples.y
        assert y is not None
        if self.own:
            m = drawn_size(self.m_max, generator)
            chosen = self.table.complements(index, m, generator)
        else:
            chosen = self.table.members(y[index], self.m_max, generator)
        return self.examples.x[index], y[index], self.table.examples.x[chosen]


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

    The labels of the examples are not looked at: sets of ``m_max`` are drawn from the table.
    """

    table: ClassTable
    m_max: int

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Points of shape `batch *x_shape`, and sets `classes m *x_shape`."""
        return self.examples.x[index], self.table.of_each_class(self.m_max, generator)


@dataclass(frozen=True)
class Mixed(WithClassSets):
    """Unlabelled and labelled points together: ``(x, class_sets, x_labelled, y_labelled, sets)``.

    Every unlabelled point brings along labelled ones that never change, as many as are needed
    for each labelled point to be brought along, and each equally often but for one: so an epoch
    of the unlabelled points shows every labelled one. The size of all sets is uniform on
    `1..m_max`, one draw a batch.
    """

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Make a batch of both kinds, with sets for the classes and for the labelled points."""
        labelled = self.table.examples.x
        rounds = -(-len(labelled) // len(self.examples))
        steps = len(self.examples) * torch.arange(rounds, device=index.device)
        brought = (index[:, None] + steps).flatten() % len(labelled)
        m = drawn_size(self.m_max, generator)
        class_sets = self.table.of_each_class(m, generator)
        sets = labelled[self.table.complements(brought, m, generator)]
        return self.examples.x[index], class_sets, labelled[brought], self.table.y[brought], sets


def drawn_size(m_max: int, generator: torch.Generator) -> int:
    """Draw the size of a set, uniform on `1..m_max`, from the seed of a generator.

    A draw of the generator itself would be a value to wait for on an accelerator. A mask over
    `m_max` members needs none, and takes half as much time again for a step with `m_max` of 7.
    """
    return 1 + mixed_seed(generator.initial_seed()) % m_max


def balanced_labels(examples: Examples, labels: int, num_classes: int, *, seed: int) -> Tensor:
    """Choose the points whose labels are known, equally many of each class.

    What the classes cannot share equally goes one each to the first of them. The choice is a
    function of the seed, on every device. Returned are the indices of the points, ascending.

    Raises:
        UserError: if there are no labels, or a class has too few points.
    """
    if examples.y is None:
        raise UserError("labelled points are chosen by class: these data have no labels.")
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


def _below(bound: Tensor, m: int, generator: torch.Generator) -> Tensor:
    """Uniform integers below the bounds `n 1`, of shape `n m`."""
    # In double precision, no draw is rounded up to the bound.
    u = torch.rand(len(bound), m, generator=generator, device=bound.device, dtype=torch.float64)
    return (u * bound).long()
