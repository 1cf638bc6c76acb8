"""What every story has in common: numbers that build the parts of a training.

`Story` is a dataclass of hyper-parameters. From a story, a guide's name, a seed and data come
`Parts`: the model, the guide, the loss, the batches of each split, and the plan of the training.
Every verb of the package is a function of parts, or of a run folder.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import torch
from matplotlib.figure import Figure
from pyro.infer import ELBO
from torch import nn

from pyro_latents.checks.splits import HonestSplit, half_images
from pyro_latents.data.batches import Batches, BatchMaker, Plain
from pyro_latents.data.examples import Splits
from pyro_latents.data.sources import SHAPES, named
from pyro_latents.errors import UserError
from pyro_latents.evaluation.bound import bound_by_point
from pyro_latents.evaluation.codes import prior_means, reconstructions
from pyro_latents.evaluation.evidence import ImportanceSampling, log_evidence_of_batches
from pyro_latents.evaluation.metrics import Metrics, of_evidence
from pyro_latents.fields import NotNegative, Positive, check_fields
from pyro_latents.guides.refined import unrefined
from pyro_latents.live import Live
from pyro_latents.losses import TraceAnalytic_ELBO
from pyro_latents.plots import image_rows
from pyro_latents.stories.transformation import Transformation
from pyro_latents.stories.vectors import picture_of_vectors
from pyro_latents.training.plan import (
    Phase,
    Plan,
    Schedule,
    adadelta,
    adam,
    falling,
    halving,
    muon,
)

# Images in a row of a figure.
COLUMNS = 12
# Of fields that are no options: they follow from others.
FOLLOWS = {"option": False}


class Parts:
    """The parts of one training, each built when it is first asked for.

    Args:
        story: The hyper-parameters.
        guide: The name of one of the story's guides, or a guide: any callable with the model's
            arguments and latent sites.
        seed: Of the initial parameters, the batches and all draws.
        load: Loads the data.

    Attributes:
        is_frozen: Whether the model is that of another run, and stays as it is.
        stand_in: What the model is built around in the place of the data, where all that it takes
            from them is overwritten by a checkpoint.
    """

    is_frozen = False
    stand_in: Splits | None = None

    def __init__(
        self, story: Story, guide: str | Callable, *, seed: int, load: Callable[[], Splits]
    ) -> None:
        self.story = story
        self.seed = seed
        self._guide = guide
        self._load = load
        self._device = torch.device("cpu")

    @property
    def device(self) -> torch.device:
        """Where programs and data are."""
        return self._device

    @cached_property
    def splits(self) -> Splits:
        """The data, on the device of the parts."""
        return self._load().to(self._device)

    @cached_property
    def model(self) -> Any:
        """The generative model, with its initial parameters."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.story.build_model(lambda: self.stand_in or self.splits)

    @cached_property
    def guide(self) -> Any:
        """The guide, with its initial parameters."""
        if not isinstance(self._guide, str):
            return self._guide
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 1)
            return self.story.build_guide(self._guide, self.model)

    @cached_property
    def loss(self) -> ELBO:
        """The objective, a sum over the data plate in nats."""
        return self.story.build_loss()

    @cached_property
    def plan(self) -> Plan:
        """What the training does at each step."""
        return self.story.build_plan(self)

    def batches(self, split: str = "train", *, limit: int | None = None) -> BatchMaker:
        """Return the maker of batches of ``train``, ``validation`` or ``test``, or of its start.

        No more than the first ``limit`` data points are used, if there is a limit.
        """
        splits = self.splits
        if limit is not None:
            splits = replace(splits, **{split: getattr(splits, split).take(slice(limit))})
        return self.story.build_batches(split, splits)

    def first_batch(self, split: str = "train", *, size: int) -> tuple[Any, ...]:
        """Return one batch of the first data points of a split."""
        maker = self.batches(split)
        return Batches(maker, min(size, len(maker)), seed=self.seed, shuffle=False).batch(0)

    def loader(self, split: str, *, rank: int = 0, world_size: int = 1) -> Batches | None:
        """Return the batches of a split for a rank of several, None if the split is empty."""
        examples = getattr(self.splits, split)
        if not len(examples):
            return None
        size = self.story.batch_size
        return Batches(
            self.batches(split),
            size,
            seed=self.seed,
            shuffle=split == "train",
            # A smaller last batch would weigh its data points more than the others do.
            drop_last=split == "train" and len(examples) >= size,
            rank=rank,
            world_size=world_size,
        )

    def to(self, device: torch.device | str) -> Parts:
        """Move the programs and the data, once, and return the parts themselves."""
        self._device = torch.device(device)
        for program in (self.model, self.guide):
            if isinstance(program, nn.Module):
                program.to(self._device)
        if "splits" in self.__dict__:
            self.splits = self.splits.to(self._device)
        return self

    def with_programs(self, model: Any, guide: Any) -> Parts:
        """Return the same parts with another model and guide: one within them, say."""
        parts = copy.copy(self)
        parts.model, parts.guide = model, guide
        return parts


@dataclass(frozen=True, kw_only=True)
class Story(ABC):
    """The hyper-parameters of a recipe, and how its parts are built from them.

    Every field is an option of `pyro-latents train RECIPE` and a keyword of `zoo.recipe`. A story
    subclasses this once, names itself, its paper and its guides (the first one is the default) and
    writes ``build_model`` and ``build_guide``; it overrides the others where they do not fit. Each
    of its recipes is an instance, whose defaults are the paper's.

    Args:
        data: Name of the data set, or the path of data of one's own: a .npy or .npz file, or a
            folder of images.
        epochs: Passes over the training data.
        batch_size: Data points in a gradient step, over all devices together.
        optimizer: Adam for all parameters, or Muon for the matrices of layers where they are small
            (`pyro_latents.training.muon`), and Adam for the rest; or Adadelta.
        learning_rate: Step size of Adam; of Adadelta, for which it is usually 1.
        matrix_learning_rate: Step size of Muon.
        schedule: Whether learning rates ``halve`` every so many epochs, or ``fall`` to zero at the
            end of the training after a tenth of it in which they rise.
        halve_every: Epochs after which learning rates are halved, again and again; 0 for never.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        patience: Epochs without a better validation loss after which training stops; 0 for never.
        validation: Training images set apart to watch the loss on; of data of one's own, a tenth
            of them at most.
        data_shape: The shape of one of the points of one's own data, which is read off them.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    guides: ClassVar[tuple[str, ...]]
    # Numbers of earlier versions that are gone, as runs have them to which they meant nothing.
    former: ClassVar[Mapping[str, Any]] = {}
    # Lightning's names of the number formats that training takes; None for all.
    precisions: ClassVar[tuple[str, ...] | None] = None

    data: str
    epochs: Positive[int] = 20
    batch_size: Positive[int] = 100
    optimizer: Literal["adam", "muon", "adadelta"] = "adam"
    learning_rate: Positive[float] = 1e-3
    matrix_learning_rate: Positive[float] = 0.02
    schedule: Literal["halve", "fall"] = "halve"
    halve_every: NotNegative[int] = 0
    gradient_clip: NotNegative[float] = 0.0
    patience: NotNegative[int] = 0
    validation: NotNegative[int] = 10_000
    # No option: it goes with the data.
    data_shape: tuple[int, ...] = field(default=(), metadata=FOLLOWS)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.data in SHAPES:
            object.__setattr__(self, "data_shape", ())
        elif not self.data_shape:
            for name, value in zip(("data", "data_shape"), named(self.data), strict=True):
                object.__setattr__(self, name, value)
        if self.patience and not self.validation:
            raise UserError("--patience watches the validation loss: give --validation as well.")

    def check_precision(self, name: str) -> None:
        """Raise a `UserError` if the story cannot be trained in a number format."""
        if self.precisions is not None and name not in self.precisions:
            raise UserError(
                f"{self.name} cannot be trained with --precision {name}: "
                f"give {' or '.join(self.precisions)}."
            )

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of one data point."""
        return self.data_shape or SHAPES[self.data]

    @abstractmethod
    def build_model(self, splits: Callable[[], Splits]) -> nn.Module:
        """Return the model; ``splits()`` loads the data for a model that is built around them."""

    @abstractmethod
    def build_guide(self, name: str, model: nn.Module) -> nn.Module:
        """Return the guide of that name (one of ``guides``), fitting the model's sites."""

    def build_loss(self) -> ELBO:
        """Return the objective, a sum over the data plate in nats: here the analytic bound."""
        return TraceAnalytic_ELBO(max_plate_nesting=1)

    def build_batches(self, split: str, splits: Splits) -> BatchMaker:
        """Return the maker of batches of a split, by its name: here the data as they are."""
        return Plain(getattr(splits, split))

    def build_plan(self, parts: Parts) -> Plan:
        """Return the plan of the training: here every step is of all parameters."""
        programs, rate = (parts.model, parts.guide), self.learning_rate
        if self.optimizer != "muon":
            kind = adam if self.optimizer == "adam" else adadelta
            return Plan(
                partial(kind, *programs, learning_rate=rate), schedule=self.build_schedule()
            )
        rates = {"learning_rate": rate, "matrix_learning_rate": self.matrix_learning_rate}
        return Plan(
            partial(muon, *programs, **rates),
            phases={"all": Phase(("matrices", "others"))},
            schedule=self.build_schedule(),
        )

    def build_schedule(self) -> Schedule:
        """Return how the learning rates change in the course of the training."""
        return falling if self.schedule == "fall" else halving(self.halve_every)

    def metrics(self, parts: Parts, batches: BatchMaker, sampling: ImportanceSampling) -> Metrics:
        """Return what `pyro-latents evaluate` reports of trained parts, by name.

        The batches are those of the test data; the marginal likelihood is estimated by sampling.
        What each data point has a value of is a tensor of shape `points`, of which the mean is
        reported, and the differences of two runs have a standard error.
        """
        terms = bound_by_point(parts.model, parts.guide, batches, seed=parts.seed)
        found = log_evidence_of_batches(
            parts.model,
            parts.guide,
            batches,
            num_particles=sampling.particles,
            points=sampling.points,
            seed=parts.seed,
        )
        return {**terms, **of_evidence(found, sampling.particles)}

    def figures(self, parts: Parts) -> dict[str, Figure]:
        """Return the pictures that `pyro-latents plot` draws of trained parts, by file name."""
        if len(self.x_shape) != 3:
            return {"points": picture_of_vectors(*self.alone(parts), parts.splits.test)}
        batch = parts.first_batch("test", size=COLUMNS)
        rows = {
            "test images": batch[0],
            "reconstructions": reconstructions(parts.model, parts.guide, *batch),
            "prior draws": prior_means(parts.model, len(batch[0])),
        }
        return {"images": image_rows(rows)}

    def live(self, parts: Parts) -> Live | None:
        """Return what `pyro-latents report` lets a reader move, or None for nothing.

        Its steps are functions of tensors on the device of the parts, which a page computes
        itself (`pyro_latents.live`).
        """
        return None

    def honest_split(self, parts: Parts, *, points: int, seed: int) -> HonestSplit | None:
        """Return what `pyro-latents check` hides of a data point, or None for nothing.

        Here it is the right half of an image, where there is an `image_pair`. Checked are the
        first ``points`` test points; the seed is of all that is random in the split itself.
        """
        pair = self.image_pair(parts)
        if pair is None:
            return None
        return half_images(
            *pair,
            lambda examples: self.build_batches("test", replace(parts.splits, test=examples)),
            parts.splits.test.take(slice(points)),
            seed=seed,
        )

    def alone(self, parts: Parts) -> tuple[Any, Any]:
        """Return a model and a guide that are called with data points alone.

        A run in Python encodes and draws with them. Here they are the story's own: one whose
        programs take more than ``x`` returns others, or has defaults for what is left out.
        """
        return parts.model, parts.guide

    def build_transformation(self, parts: Parts) -> Transformation | None:
        """Return what moves the content of a data point, or None where nothing does."""
        return None

    def image_pair(self, parts: Parts) -> tuple[Callable, Callable] | None:
        """Return the programs of images `alone`, or None if there are none.

        `pyro-latents check` turns images with them. A refined guide is given without refinement:
        it is the encoder that may or may not turn along.
        """
        if len(self.x_shape) != 3 or len(parts.first_batch("test", size=2)) != 1:
            return None
        return parts.model, unrefined(parts.guide)

    def _require_images(self, *sides: int) -> None:
        """See that data points are images; of one of these sides, if any are given."""
        if len(self.x_shape) != 3:
            raise UserError(f"{self.name} is for images, not for {self.data}.")
        side = self.x_shape[-1]
        if sides and side not in sides:
            taken = " or ".join(f"{n} x {n}" for n in sides)
            raise UserError(
                f"the networks of {self.name} take images of {taken}; those of {self.data} have "
                f"{side} x {side}: bring them to that size first."
            )


def by_muon(learning_rate: float, **numbers: Any) -> dict[str, Any]:
    """Return the numbers of a training by Muon, with a rate that falls to zero, beside others."""
    return {"optimizer": "muon", "schedule": "fall", "learning_rate": learning_rate, **numbers}
