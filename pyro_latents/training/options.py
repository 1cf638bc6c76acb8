"""How long and on what to train."""

from dataclasses import asdict, dataclass
from typing import Any

from pyro_latents.errors import UserError
from pyro_latents.fields import check_fields, plain


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How long and on what to train.

    Args:
        epochs: Passes over the training data; None leaves it to ``steps``.
        steps: Gradient steps; None leaves it to ``epochs``.
        devices: Number of devices of a machine, each with its share of every batch.
        nodes: Number of machines, with as many devices each.
        accelerator: Lightning's name of the device kind: ``auto``, ``cpu``, ``gpu``.
        precision: Lightning's name of the number format, such as ``32-true``.
        eager: Whether every step is run by the programs, and none captured as a graph.
        tensorboard: Whether to write TensorBoard's event files as well.
        progress: Whether to show a progress bar.
    """

    epochs: int | None = None
    steps: int | None = None
    devices: int = 1
    nodes: int = 1
    accelerator: str = "auto"
    precision: str = "32-true"
    eager: bool = False
    tensorboard: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("epochs", "steps", "devices", "nodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1; got {value}.")
        if (self.epochs is None) == (self.steps is None):
            raise UserError("give either --epochs or --steps.")

    @property
    def ranks(self) -> int:
        """The number of processes, one a device."""
        return self.devices * self.nodes

    def last_step(self, steps_per_epoch: int) -> int:
        """Return the number of steps that will have been taken at the end."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * steps_per_epoch

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name, for the configuration of a run."""
        return {name: plain(value) for name, value in asdict(self).items()}
