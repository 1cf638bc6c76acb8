"""Seeded batches, made on the device of the data.

A :class:`BatchMaker` turns the indices of a batch into the positional arguments of a model and
its guide; :class:`Batches` draws the indices. A story writes its own maker (triplets,
complementary sets) and shares the rest.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyro_latents.data.examples import Examples


class BatchMaker(Protocol):
    """Builds batches from :attr:`examples`.

    A maker holds no random state: every draw comes from the generator it is given, which is on
    the device of the examples, so that a batch is a function of its arguments alone. It treats
    the batch as a whole; it does not loop over data points.
    """

    @property
    def examples(self) -> Examples:
        """The data points that an index refers to."""
        ...

    def __len__(self) -> int:
        """The number of data points that an epoch goes through."""
        ...

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The batch of the data points at ``index``.

        Args:
            index: Integers of shape `batch`, on the device of the examples.
            generator: The source of all randomness, on the same device.

        Returns:
            Exactly the positional arguments of the model and the guide.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """The data points as they are: ``(x,)``."""

    examples: Examples

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The data points at ``index``, of shape `batch ...`."""
        return (self.examples.x[index],)


@dataclass(frozen=True)
class Binarised:
    """Images with every pixel drawn anew as Bernoulli of its grey value: ``(x,)``."""

    examples: Examples

    def __len__(self) -> int:
        return len(self.examples)

    def __call__(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Images of zeros and ones, of shape `batch channels height width`."""
        grey = self.examples.x[index]
        # Twice as fast on a CPU as `torch.bernoulli`, which draws one pixel at a time.
        noise = torch.rand(grey.shape, generator=generator, dtype=grey.dtype, device=grey.device)
        return (noise.lt_(grey),)


class Batches:
    """The batches of one epoch, a pure function of the seed and the epoch.

    The order of an epoch depends on ``(seed, epoch)``, and the randomness of a batch on
    ``(seed, epoch, batch, rank)``: neither on torch's global generator nor on anything drawn
    before. So a resumed run repeats its batches exactly, and any batch can be made on its own
    with :meth:`batch`. Call :meth:`set_epoch` before each epoch.

    With several ranks, ``batch_size`` is that of all ranks together: each takes its equal share
    of the same permutation and no data point is used twice. A last batch that the ranks cannot
    share equally loses its remainder, fewer than ``world_size`` data points, because ranks that
    differ in size would weigh their data points differently.

    Args:
        maker: Makes a batch from indices.
        batch_size: Data points in a batch, over all ranks.
        seed: Of the order and of all draws in the batches.
        shuffle: Whether every epoch has an order of its own.
        drop_last: Whether a last batch smaller than ``batch_size`` is left out.
        rank: Which of the shares to make.
        world_size: The number of shares.

    Raises:
        ValueError: if the batch size is below one or not a multiple of ``world_size``, if the
            rank is outside the world, or if no batch can be made of the data.

    Example:
        >>> maker = Plain(Examples(torch.arange(5.0)[:, None]))
        >>> [len(x) for (x,) in Batches(maker, 2, seed=0)]
        [2, 2, 1]
    """

    def __init__(
        self,
        maker: BatchMaker,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size - 1}; got {rank}.")
        if batch_size % world_size:
            raise ValueError(
                f"batch_size must be a multiple of the {world_size} ranks; got {batch_size}. "
                f"Take {batch_size // world_size * world_size or world_size}."
            )
        self.maker = maker
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._start = 0
        if not len(self):
            raise ValueError(
                f"no batch of {batch_size} can be made of {len(maker)} data points"
                + (" without the last, incomplete one." if drop_last else ".")
            )

    def __len__(self) -> int:
        """The number of batches in an epoch, the same on every rank."""
        full, rest = divmod(len(self.maker), self.batch_size)
        return full + (not self.drop_last and rest >= self.world_size)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the next iterations, and the batch that they start at.

        Args:
            epoch: The number of the epoch, from 0.
            start: Batches to pass over, for a run that stopped within the epoch; it holds for
                the next iteration only. ``len`` remains that of the whole epoch.
        """
        self.epoch = epoch
        self._start = start

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        epoch, start, self._start = self.epoch, self._start, 0
        order = self.order(epoch)
        generator = torch.Generator(self.maker.examples.device)
        for number in range(start, len(self)):
            yield self._make(order, epoch, number, generator)

    def batch(self, number: int) -> tuple[Tensor, ...]:
        """Batch ``number`` of the current epoch, as the iteration would give it."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch must be in 0..{len(self) - 1}; got {number}.")
        generator = torch.Generator(self.maker.examples.device)
        return self._make(self.order(self.epoch), self.epoch, number, generator)

    def order(self, epoch: int) -> Tensor:
        """The indices of an epoch in the order of use, the same on every rank and device."""
        device = self.maker.examples.device
        if not self.shuffle:
            return torch.arange(len(self.maker), device=device)
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        return torch.randperm(len(self.maker), generator=generator).to(device)

    def _make(
        self, order: Tensor, epoch: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        share = order[number * self.batch_size :][: self.batch_size]
        share = share[: len(share) // self.world_size * self.world_size]
        generator.manual_seed(mixed_seed(self.seed, epoch, number, self.rank))
        return self.maker(share[self.rank :: self.world_size], generator)


def mixed_seed(*parts: int) -> int:
    """One seed from several integers, such that near parts give unrelated seeds.

    The CPU generator reads the low 32 bits of a seed only, so they must depend on every part.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
