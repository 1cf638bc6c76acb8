"""What every table and figure of a paper shares: its budgets, its trainings, its result."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, TypeVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents import zoo
from pyro_latents.data.examples import Examples
from pyro_latents.data.sources import SHAPES
from pyro_latents.plots import save
from pyro_latents.reproduce.parallel import cores, in_processes
from pyro_latents.runs.recipe import Recipe, Run
from pyro_latents.stories.story import Parts
from pyro_latents.text import padded

IMAGES = ("mnist", *(data for data, x in SHAPES.items() if len(x) == 3 and data != "mnist"))

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of a paper's work is done.

    Args:
        name: ``quick`` (minutes on two cores), ``hours`` (all the data, a shorter schedule), or
            ``paper``, the paper's own.
        images: Training images, None for all.
        steps: Gradient steps of a training, None for the epochs of its story.
        numbers: Hyper-parameters of every training.
        test_images: Of the measurements that take many draws of each image, None for all.
        particles: Importance samples of an image.
        own: What a paper's experiments have beside these, by name.
    """

    name: str
    images: int | None = None
    steps: int | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    test_images: int | None = None
    particles: int = 1_000
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What an experiment is asked for: the arguments of `reproduce`, with one of its budgets."""

    budget: Budget
    out: Path
    data: str | None = None
    data_dir: str | Path | None = None
    seed: int = 0
    processes: int | None = None
    precision: str = "32-true"

    @property
    def seeds(self) -> range:
        """The seeds of the trainings of one row, as many as the budget has."""
        return range(self.seed, self.seed + self.budget.own.get("seeds", 1))

    def job(self, recipe: str, folder: str, **options: Any) -> Job:
        """Return a training with this seed and budget, and other fields of the job.

        The words of ``folder`` tell its run from all others of the experiment.
        """
        path = self.out / "-".join(re.findall(r"[a-z0-9.]+", folder.lower()))
        options = {"seed": self.seed, "images": self.budget.images, **options}
        return Job(context=self, recipe=recipe, folder=path, **options)

    def apply(self, function: Callable[[Job], Outcome], jobs: Sequence[Job]) -> list[Outcome]:
        """Apply a function, at the top of a module, to each job in processes of their own."""
        return in_processes(
            function,
            jobs,
            cost=lambda job: job.cost,
            processes=self.processes,
            description="models",
        )

    def train(self, jobs: Sequence[Job]) -> list[Parts]:
        """Train models side by side and return the trained parts, in the order of the jobs."""
        return [Run(path).parts for path in self.apply(_train, jobs)]

    def save(self, figure: Figure, name: str) -> Path:
        """Write a picture that belongs to the result, and return its path."""
        return save(figure, self.out / f"{name}.png")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: of which recipe, with what, and where its run is left.

    Args:
        context: What its experiment is asked for.
        recipe: The recipe's name.
        folder: The folder of the run.
        numbers: Hyper-parameters, before those of the budget and the recipe.
        guide: The guide's name.
        seed: Of everything that is drawn.
        images: Training images, None for all.
        label: What tables call the model.
        cost: How long it takes beside others, in any unit.
    """

    context: Context
    recipe: str
    folder: Path
    numbers: Mapping[str, Any] = field(default_factory=dict)
    guide: str = "paper"
    seed: int = 0
    images: int | None = None
    label: str = ""
    cost: float = 0.0

    def build(self) -> Recipe:
        """Return the recipe, untrained."""
        return zoo.recipe(
            self.recipe,
            guide=self.guide,
            seed=self.seed,
            data_dir=self.context.data_dir,
            limit_train=self.images,
            as_published=True,
            **{**self.context.budget.numbers, **self.numbers},
        )

    def train(self, *, epochs: int | None = None, progress: bool = False) -> Run:
        """Train the recipe, or take up where that stopped; epochs go before the budget."""
        steps = None if epochs else self.context.budget.steps
        options: dict[str, Any] = {"epochs": epochs, "steps": steps, "progress": progress}
        precision = self.context.precision
        return self.build().train(self.folder, resume=True, precision=precision, **options)

    def settings(self, *names: str) -> dict[str, Any]:
        """Return what a result says of the training: these hyper-parameters, and the rest."""
        recipe, steps = self.build(), self.context.budget.steps
        return {
            **{name: getattr(recipe.story, name) for name in names},
            **({"steps": steps} if steps else {"epochs": recipe.story.epochs}),
            "optimiser": recipe.story.optimizer,
            "precision": self.context.precision,
            "training_images": len(recipe.splits.train),
            "provenance": recipe.splits.provenance,
        }


def _train(job: Job) -> Path:
    return job.train().path


@dataclass(frozen=True)
class Result:
    """A table, with what one must know to believe it.

    Args:
        title: What it shows, in one line.
        columns: The columns' names.
        rows: The cells: text, numbers, None where there is nothing to say. Figures of the paper
            have columns of their own beside ours.
        settings: Every setting that matters: epochs, sizes, weights, data and their provenance.
        figures: Pictures that belong to it.
        notes: Sentences for the reader of the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    notes: Sequence[str] = ()

    def as_markdown(self) -> str:
        """Return the table as text that reads well as it is."""
        cells = padded(
            [list(self.columns), *[[_shown(cell) for cell in row] for row in self.rows]]
        )
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (len(cell) + 2) for cell in cells[0]) + "|")
        return "\n".join([self.title, "", *lines, *["", *self.notes][: 1 + len(self.notes)], ""])


def mean_and_error(values: list[float]) -> list[Any]:
    """Return the mean, its standard error as Feige (2019) has it, and the number of trials."""
    mean = fmean(values) if values else None
    error = pstdev(values) / math.sqrt(len(values) - 1) if len(values) > 1 else None
    return [mean, error, len(values)]


def labels(examples: Examples) -> Tensor:
    """Return the labels of data that have some."""
    assert examples.y is not None
    return examples.y


def tiled(images: Tensor) -> Tensor:
    """Lay images, `rows columns channels height width`, out as one `height width *channels`."""
    return images.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).squeeze(-1)


def lattice(side: Tensor) -> Tensor:
    """Return the points of a square, `side side 2`, the second coordinate rising upwards."""
    second, first = torch.meshgrid(side.flip(0), side, indexing="ij")
    return torch.stack([first, second], -1)


def hardware() -> str:
    """What the figures were measured on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    count = cores()
    return f"{count} CPU core{'s' * (count > 1)}, {processor()}"


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _shown(cell: Any) -> str:
    if cell is None:
        return ""
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class Experiment:
    """A named table or figure.

    Args:
        name: Its name on the command line, such as ``giannone-table1``.
        run: Runs it; the first line of its docstring says what it shows.
        budgets: Its budgets.
        takes: The data it can be run on, the paper's first; none if it makes its own.
        reads: Which data it reads; by default those that are asked for, or the paper's.
    """

    name: str
    run: Callable[[Context], Result]
    budgets: Sequence[Budget]
    takes: Sequence[str]
    reads: Callable[[Context], Sequence[str]] | None = None

    @property
    def summary(self) -> str:
        """What it shows, in one line."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


def experiment(
    name: str, budgets: Sequence[Budget], takes: Sequence[str] = IMAGES, **options: Any
) -> Callable[[Callable[[Context], Result]], Experiment]:
    """Make a function an experiment; the arguments are those of `Experiment`."""
    return lambda run: Experiment(name, run, budgets, takes, **options)
