"""A recipe with its parts, and the run it trains; apart they would import each other."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain, count
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from pyro_latents.data.sources import load
from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.calibration import calibrate, p_values
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.fields import plain
from pyro_latents.guides import check_guide
from pyro_latents.guides.refined import Refined
from pyro_latents.plots import learning_curve, rank_ecdfs, save
from pyro_latents.runs.folder import RunFolder
from pyro_latents.runs.registry import story_of
from pyro_latents.stories.story import Parts, Story
from pyro_latents.text import did_you_mean
from pyro_latents.training.options import FitOptions
from pyro_latents.training.step import Objective

# Enough for stories that compare data points with each other, and quickly run.
CHECKED_POINTS = 4
# What a calibration simulates where it is not told how much.
CALIBRATED_POINTS = 500
RECORDED = ("pyro-latents", "pyro-ppl", "torch", "torchvision", "lightning-fabric", "numpy")

# Pyro's handlers and where its parameters live are the process's, and so is the random state.
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def _alone() -> Iterator[None]:
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise UserError(
            "another training runs in this process, whose random state it would share: train in "
            "a process of its own, or one after the other."
        )
    try:
        yield
    finally:
        _ONE_AT_A_TIME.release()


class Recipe(Parts):
    """A story on a data set, with a guide and a seed: its parts are plain Pyro objects.

    Args:
        name: Its name, as in `pyro-latents list`.
        guide: The name of one of its guides, or a guide: any callable with the model's arguments
            and latent sites; the paper's by default.
        seed: Of the initial parameters, the batches and all draws.
        data_dir: Where data sets lie; None for ``PYRO_LATENTS_DATA``.
        limit_train: Training points to use, None for all.
        **numbers: Hyper-parameters other than the paper's, such as ``z_dim=20``.

    Raises:
        UserError: if one of them is not known, or makes no sense.
    """

    def __init__(
        self,
        name: str,
        *,
        guide: str | Callable | None = None,
        seed: int = 0,
        data_dir: str | Path | None = None,
        limit_train: int | None = None,
        **numbers: Any,
    ) -> None:
        story, seed, limit_train = story_of(name), plain(seed), plain(limit_train)
        known = [field.name for field in fields(story)]
        for number in numbers:
            if number not in known:
                raise UserError(f"{name} has no setting {number!r}: {did_you_mean(number, known)}")
        story = replace(story, **{number: plain(value) for number, value in numbers.items()})
        guide = story.guides[0] if guide is None else guide
        if isinstance(guide, str) and guide not in story.guides:
            raise UserError(
                f"{name} has no guide {guide!r}: {did_you_mean(guide, story.guides, '')} "
                f"Its guides are {', '.join(story.guides)}."
            )
        check_seed(seed)
        if not isinstance(guide, str) and not callable(guide):
            raise UserError(f"a guide is the name of one or a program; got {guide!r}.")
        if limit_train is not None and not isinstance(limit_train, Integral):
            raise UserError(f"--limit-train must be a whole number; got {limit_train!r}.")
        self.name = name
        self.data_dir = data_dir
        self.limit_train = limit_train
        self._is_trained = False
        validation = story.validation
        source = partial(
            load, story.data, data_dir, validation=validation, limit_train=limit_train
        )
        super().__init__(story, guide, seed=seed, load=source)

    @_alone()
    def train(
        self,
        out: str | Path | None = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        resume: bool = False,
        **options: Any,
    ) -> Run:
        """Train and leave a run folder.

        Args:
            out: The folder; by default the first free one of ``runs/NAME``, ``runs/NAME-2``, ...
            epochs: Passes over the data; those of the story unless ``steps`` is given.
            steps: Gradient steps, in the place of epochs.
            resume: Whether to go on with the run in ``out``, exactly as if it had not stopped.
            **options: Further `FitOptions`, such as ``devices``.

        Raises:
            UserError: if ``out`` holds something else, the recipe has been trained already, or
                training fails for a reason that the user can mend.
        """
        # Lightning takes seconds to import, and only training needs it.
        from pyro_latents.training.compiled import compile_networks
        from pyro_latents.training.hardware import is_first_rank
        from pyro_latents.training.loop import check_hardware, fit

        if epochs is None and steps is None:
            epochs = self.story.epochs
        fit_options = FitOptions(epochs=epochs, steps=steps, **options)
        folder, config = RunFolder(out or _free_folder(self.name)), self.config(fit_options)
        self._check_options(fit_options, restored=resume and folder.is_started())
        # Missing or broken data, or a guide that does not fit, must not leave a folder behind.
        self.check_guide()
        check_hardware(self, fit_options, folder.path)
        if fit_options.compile:
            compile_networks(self.model, self.guide)
        # The others learn from it which folder it is.
        first = is_first_rank(fit_options.ranks)
        with folder.held() if first else nullcontext():
            resume = resume and folder.is_started()
            if first and resume:
                self._check_resumable(folder, config, fit_options)
                folder.clean()
            elif first:
                folder.begin(config)
            self._is_trained = True
            path = fit(
                self,
                folder.path,
                fit_options,
                resume=resume,
                begin=partial(folder.go_on, config) if resume else lambda: None,
                gradient_clip=self.story.gradient_clip,
                patience=self.story.patience,
            )
        return Run(path)

    def check_guide(self) -> None:
        """Raise a `GuideMismatch` unless the guide has the model's sites, on some of the data."""
        check_guide(self.model, self.guide, *self.first_batch("train", size=CHECKED_POINTS))

    def config(self, options: FitOptions) -> dict[str, Any]:
        """Return what `Run` needs to build this recipe again, and what was installed."""
        guide = self._guide
        if not isinstance(guide, str):
            guide = getattr(guide, "__name__", type(guide).__name__)
        return {
            "recipe": self.name,
            "guide": guide,
            "seed": int(self.seed),
            "data_dir": None if self.data_dir is None else str(Path(self.data_dir).resolve()),
            "limit_train": self.limit_train,
            "settings": _stored(self.story),
            "training": options.as_dict(),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in RECORDED},
            },
        }

    def _check_options(self, options: FitOptions, *, restored: bool) -> None:
        if self._is_trained and not restored:
            raise UserError(
                "this recipe has been trained, and would not begin with its first parameters: "
                "make another one with zoo.recipe, or go on with resume=True."
            )
        size, devices = self.story.batch_size, options.ranks
        if size % devices:
            raise UserError(
                f"--batch-size {size} cannot be shared by {devices} devices: give a multiple of "
                f"{devices}."
            )
        self.story.check_precision(options.precision)

    def _check_resumable(
        self, folder: RunFolder, ours: dict[str, Any], options: FitOptions
    ) -> None:
        """Raise if the run in the folder is of another recipe, or has been trained for longer."""
        theirs = folder.read_config()
        # A run from before a setting existed had its default.
        found = {**ours["training"], **_stored(story_of(self.name))}
        found |= {**theirs["training"], **theirs, **theirs["settings"]}
        asked = {**ours["training"], **ours, **ours["settings"]}
        # It may be resumed for more epochs, and elsewhere.
        fixed = {"guide", "seed", "limit_train", "precision", *ours["settings"]} - {"epochs"}
        for key in ("recipe", *sorted(fixed)):
            if found[key] != asked[key]:
                raise UserError(
                    f"{folder.path} was trained with {key} {found[key]}, not {asked[key]}: "
                    "resume with the same options, or give another --out."
                )
        loader = self.loader("train")
        assert loader is not None
        done, last = folder.step(), options.last_step(len(loader))
        if last < done:
            raise UserError(
                f"{folder.path} has been trained for {done} steps, more than the {last} that "
                "are asked for: give more, or leave it as it is."
            )


class Run:
    """A trained recipe on disk.

    Args:
        path: The folder that `Recipe.train` wrote.
        data_dir: Where its data set lies now; None for where it lay, or ``PYRO_LATENTS_DATA``.

    Raises:
        UserError: if the folder is not a run; and where it is asked for what is damaged.
    """

    def __init__(self, path: str | Path, *, data_dir: str | Path | None = None) -> None:
        self.folder = RunFolder(path)
        self.path = self.folder.path
        self.config = self.folder.read_config()
        self._data_dir = data_dir

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured of the run so far."""
        return self.folder.read_metrics()

    @property
    def story(self) -> Story:
        """The hyper-parameters that the run was trained with, if the story still has them all."""
        story = story_of(self.config["recipe"])
        known = {field.name for field in fields(story)}
        given = self.config["settings"]
        for name in given:
            if name not in known:
                raise UserError(
                    f"{self.folder.config_path} has a setting {name} that this version does not "
                    f"know: {did_you_mean(name, known, 'train the run anew.')}"
                )
        numbers: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        # A run from before a setting existed had its default.
        return replace(story, **numbers)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with its trained parameters, on the device that there is."""
        parameters = self.folder.read_parameters()
        given = {name: self.config[name] for name in ("guide", "seed", "limit_train")}
        numbers = {field.name: getattr(self.story, field.name) for field in fields(self.story)}
        recipe = Recipe(self.config["recipe"], data_dir=self._data_folder(), **given, **numbers)
        try:
            Objective(recipe.model, recipe.guide, recipe.loss, 0).load_state_dict(parameters)
        except RuntimeError as error:
            raise UserError(
                f"the checkpoint in {self.path} does not fit the recipe {recipe.name}: it was "
                "written by another version of it; train the run anew."
            ) from error
        recipe.model.eval()
        recipe.guide.eval()
        if isinstance(recipe.guide, Refined):
            recipe.guide.refining = True
        recipe.to("cuda" if torch.cuda.is_available() else "cpu")
        return recipe

    @property
    def parts(self) -> Parts:
        """The trained parts."""
        return self.recipe

    def evaluate(
        self,
        *,
        particles: int = 1000,
        likelihood_points: int = 1000,
        limit_test: int | None = None,
    ) -> dict[str, float]:
        """Measure the run on test data and add the metrics to ``metrics.json``.

        Args:
            particles: Importance samples for the marginal likelihood of a data point.
            likelihood_points: Test points to estimate it for, the first ones.
            limit_test: Test points to use, None for all.
        """
        # What is there must be readable before minutes are spent on what is added.
        self.folder.read_metrics()
        found = self.measure(
            particles=particles, likelihood_points=likelihood_points, limit_test=limit_test
        )
        self.folder.add_metrics(found)
        return self.metrics

    def measure(
        self, *, particles: int, likelihood_points: int, limit_test: int | None
    ) -> dict[str, float]:
        """Return what `evaluate` measures, and write nothing; the arguments are its own."""
        check_counts(1, limit_test=limit_test)
        sampling = ImportanceSampling(particles, likelihood_points)
        batches = self.parts.batches("test", limit=limit_test)
        metrics = self.parts.story.metrics(self.parts, batches, sampling)
        return {"test_points": len(batches), **metrics}

    def calibrate(
        self, *, points: int | None = None, draws: int = 200
    ) -> tuple[dict[str, float], Path]:
        """Rank true latent variables under the guide, on data simulated from the model.

        Args:
            points: Data points to simulate, no more than there are test points; None for 500,
                or as many as there are.
            draws: Of the guide for each of them.

        Returns:
            The p-value of uniform ranks by site, also added to ``metrics.json``, and the path of
            the figure.
        """
        check_counts(2, points=points)
        check_counts(1, draws=draws)
        # What is there must be readable before minutes are spent on what is added.
        self.folder.read_metrics()
        available = len(self.parts.splits.test)
        points = min(CALIBRATED_POINTS, available) if points is None else points
        if points > available:
            raise UserError(
                f"--points {points} are more than the {available} test points, whose classes and "
                "sets the simulated ones share: give fewer."
            )
        torch.manual_seed(self.parts.seed)
        batch = self.parts.first_batch("test", size=points)
        ranks = calibrate(self.parts.model, self.parts.guide, *batch, num_draws=draws)
        found = p_values(ranks)
        self.folder.add_metrics({f"calibration_p_{site}": p for site, p in found.items()})
        return found, save(rank_ecdfs(ranks), self.folder.figures_path / "calibration.png")

    def plot(self) -> list[Path]:
        """Draw the learning curve and the story's figures; return the pictures' paths."""
        history = self.folder.read_history()
        torch.manual_seed(self.parts.seed)
        figures = {**self.parts.story.figures(self.parts), "history": learning_curve(history)}
        folder = self.folder.figures_path
        return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]

    def _data_folder(self) -> str | Path | None:
        """Where the data are: as told, else where they were, else where the variable says."""
        before = self.config["data_dir"]
        there = before if before and Path(before).is_dir() else None
        return there if self._data_dir is None else self._data_dir


def check_seed(seed: int) -> None:
    """Raise a `UserError` unless torch takes a seed, and the next one, which the guide has."""
    if not (isinstance(seed, Integral) and 0 <= seed < 2**63 - 1):
        raise UserError(f"--seed must be a whole number from 0 to 2**63 - 2; got {seed!r}.")


def _stored(story: Story) -> dict[str, Any]:
    """The numbers of a story as a file has them."""
    return {
        name: list(plain(value)) if isinstance(value, tuple) else plain(value)
        for name, value in asdict(story).items()
    }


def _free_folder(name: str) -> Path:
    """The first of ``runs/NAME``, ``runs/NAME-2``, ... that is not there."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(path for path in map(Path("runs").joinpath, names) if not path.exists())
