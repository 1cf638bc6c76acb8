"""A data set in memory: one tensor of inputs, its labels, and what else is known of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Data points that share one device.

    Images are float32 in [0, 1]; points of a synthetic manifold are float32 vectors.

    Args:
        x: The data points, of shape `batch channels height width` or `batch features`.
        y: Their integer labels, of shape `batch`, or None where there are none.
        extras: Further facts of each data point by name (``angle``, ``latent``), each of shape
            `batch ...`. Rows go together with those of ``x``.
        provenance: One phrase on where the data come from, for results to print.

    Raises:
        ValueError: if ``y`` or one of the extras has another length than ``x``.

    Example:
        >>> examples = Examples(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]))
        >>> examples.take(torch.tensor([2, 0])).y
        tensor([2, 0])
    """

    x: Tensor
    y: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    provenance: str = ""

    def __post_init__(self) -> None:
        rows = dict(self.extras) if self.y is None else {"y": self.y, **self.extras}
        for name, values in rows.items():
            if len(values) != len(self.x):
                raise ValueError(
                    f"Examples expects one {name} for each of the {len(self.x)} data points; "
                    f"got {len(values)}."
                )

    def __len__(self) -> int:
        """The number of data points."""
        return len(self.x)

    @property
    def device(self) -> torch.device:
        """The device that all tensors are on."""
        return self.x.device

    @property
    def shape(self) -> torch.Size:
        """The shape of one data point."""
        return self.x.shape[1:]

    def to(self, device: torch.device | str) -> "Examples":
        """The same data points on another device."""
        return self._map(lambda values: values.to(device))

    def take(self, index: Tensor | slice) -> "Examples":
        """The data points at ``index`` (integers, a boolean mask or a slice), in that order."""
        if isinstance(index, Tensor):
            index = index.to(self.device)
        return self._map(lambda values: values[index])

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Examples":
        return replace(
            self,
            x=change(self.x),
            y=None if self.y is None else change(self.y),
            extras={name: change(values) for name, values in self.extras.items()},
        )


def joined(parts: Sequence[Examples]) -> Examples:
    """All data points of parts of one kind, one part after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return replace(
        first,
        x=torch.cat([part.x for part in parts]),
        y=None if first.y is None else torch.cat([part.y for part in parts if part.y is not None]),
        extras={name: torch.cat([part.extras[name] for part in parts]) for name in first.extras},
    )


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set.

    Args:
        train: What parameters are fitted to.
        validation: What training is watched and stopped with; it may be empty.
        test: What results are reported on.
        num_classes: The number of different labels, 0 where there are none.
    """

    train: Examples
    validation: Examples
    test: Examples
    num_classes: int = 0

    @property
    def shape(self) -> torch.Size:
        """The shape of one data point."""
        return self.train.shape

    @property
    def provenance(self) -> str:
        """One phrase on where the data come from, for results to print."""
        return self.train.provenance

    def to(self, device: torch.device | str) -> "Splits":
        """The same splits on another device."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )
