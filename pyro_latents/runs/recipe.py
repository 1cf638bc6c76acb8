"""A recipe with its parts, and the run it trains; apart they would import each other."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pyro_latents
from pyro_latents.data.blank import blank_splits
from pyro_latents.data.points import in_words
from pyro_latents.data.sources import SOURCES, load, named
from pyro_latents.errors import UserError, check_seed
from pyro_latents.fields import plain
from pyro_latents.files import first_free
from pyro_latents.guides import check_guide, own
from pyro_latents.guides.refined import Refined
from pyro_latents.programs import modules_of
from pyro_latents.runs.face import Face
from pyro_latents.runs.folder import RunFolder
from pyro_latents.runs.measured import Measured
from pyro_latents.runs.other_data import folder_for
from pyro_latents.runs.registry import stored_story, story_of
from pyro_latents.runs.resumption import check_resumable
from pyro_latents.runs.trained_model import TrainedModel
from pyro_latents.runs.weights import folder_of
from pyro_latents.stories.story import Parts, Story
from pyro_latents.text import did_you_mean
from pyro_latents.training.options import FitOptions
from pyro_latents.training.step import Objective

# Enough for stories that compare data points with each other, and quickly run.
CHECKED_POINTS = 4
# Number formats of all parameters, which have fewer digits than a model may have.
ROUNDING = ("bf16-true", "16-true")
# After the name of a guide that has no import path: no name or path ends so.
OBJECT = " (object)"
RECORDED = ("pyro-ppl", "torch", "torchvision", "lightning-fabric", "numpy")

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
        guide: The name of one of its guides, or one of your own: any callable with the model's
            arguments and latent sites, a factory that takes the model (`pyro_latents.guides.own`),
            or the import path of a factory, ``package.module:NAME``; the paper's by default.
        model_from: A run, its folder or the name of pretrained weights, whose model is taken as it
            is, for a new guide; its numbers are the run's then unless they are given, and those
            that the model is built from must be. None to train model and guide together.
        seed: Of the initial parameters, the batches and all draws.
        data_dir: Where data sets lie; None for ``PYRO_LATENTS_DATA``.
        limit_train: Training points to use, None for all.
        as_published: Whether to train as the paper does where we know a quicker training.
        **numbers: Hyper-parameters other than the paper's, such as ``z_dim=20``. The ``data`` may
            be a path, an array or a tensor of data points, a pair of them and their labels, or a
            dictionary of arrays (`pyro_latents.data.own`).

    Raises:
        UserError: if one of them is not known, or makes no sense.
    """

    def __init__(
        self,
        name: str,
        *,
        guide: str | Callable | None = None,
        model_from: str | Path | Run | None = None,
        seed: int = 0,
        data_dir: str | Path | None = None,
        limit_train: int | None = None,
        as_published: bool = False,
        **numbers: Any,
    ) -> None:
        story = story_of(name, as_published=as_published)
        seed, limit_train = plain(seed), plain(limit_train)
        self._trained: TrainedModel | None = None
        self._origin: dict[str, str] | None = None
        if model_from is not None:
            source = model_from if isinstance(model_from, Run) else Run(model_from)
            self._trained = TrainedModel.of(source.folder)
            story = replace(story, **self._trained.numbers_for(story, name))
            data_dir = source.data_folder() if data_dir is None else data_dir
        known = [field.name for field in fields(story)]
        for number in numbers:
            if number not in known:
                raise UserError(f"{name} has no setting {number!r}: {did_you_mean(number, known)}")
        arrays = numbers.get("data")
        if arrays is not None:
            # That of other data, which the model of a run was trained on, does not hold.
            numbers.setdefault("data_shape", ())
            numbers.setdefault("validation", _fewer(story.validation, arrays))
        if isinstance(arrays, Tensor | np.ndarray | list | tuple | Mapping):
            numbers["data"], numbers["data_shape"] = named(arrays)
        elif not isinstance(arrays, str | Path | None):
            raise UserError(
                "data are a name, a path, an array, a pair of one and its labels, or a dictionary "
                f"of arrays; got {type(arrays).__name__}: make it an array with numpy.asarray."
            )
        else:
            numbers |= {"data": str(arrays)} if isinstance(arrays, Path) else {}
            arrays = None
        story = replace(story, **{number: plain(value) for number, value in numbers.items()})
        guide = story.guides[0] if guide is None else guide
        self.guide_name = _name_of_guide(name, story, guide)
        guide = own.imported(guide) if isinstance(guide, str) and own.is_path(guide) else guide
        check_seed(seed)
        if limit_train is not None and not isinstance(limit_train, Integral):
            raise UserError(f"--limit-train must be a whole number; got {limit_train!r}.")
        self.name = name
        self.data_dir = data_dir
        self.limit_train = limit_train
        self._is_trained = False
        validation = story.validation
        read = partial(
            load,
            story.data,
            data_dir,
            validation=validation,
            limit_train=limit_train,
            arrays=arrays,
        )
        super().__init__(story, guide, seed=seed, load=read)
        if self._trained is not None:
            self._origin = self._trained.origin
            self.is_frozen = True

    def __repr__(self) -> str:
        told = {
            "story": f"{self.story.name} ({self.story.paper})",
            "data": f"{self.story.data}, {in_words(self.story.x_shape)}",
            "guide": self.guide_name,
            "model": "that of another run, frozen" if self.is_frozen else "",
            "seed": self.seed,
        }
        lines = (f"  {name:<9}{text}" for name, text in told.items() if text != "")
        return "\n".join([f"Recipe {self.name}", *lines])

    @cached_property
    def model(self) -> Any:
        """The generative model, with its initial parameters or as another run left it."""
        if self._trained is None:
            return super().model
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self._trained.build(self.story, lambda: self.splits)

    @cached_property
    def guide(self) -> Any:
        """The guide, with its initial parameters."""
        if isinstance(self._guide, str):
            return super().guide
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 1)
            return own.built(self._guide, self.model)

    def freeze(self, origin: dict[str, str] | None) -> None:
        """Leave the model as it is, which came from another run; where it did not, do nothing."""
        if origin is not None:
            self._origin, self.is_frozen = origin, True
            self.model.requires_grad_(False)

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
        from pyro_latents.training.fit import check_hardware, fit
        from pyro_latents.training.hardware import is_first_rank

        if epochs is None and steps is None:
            epochs = self.story.epochs
        fit_options = FitOptions(epochs=epochs, steps=steps, **options)
        folder, config = (
            RunFolder(out or first_free(Path("runs", self.name))),
            self.config(fit_options),
        )
        self._check_options(fit_options, restored=resume and folder.is_started())
        # Missing or broken data, or a guide that does not fit, must not leave a folder behind.
        self.check_guide()
        check_hardware(self, fit_options, folder.path)
        # The others learn from it which folder it is.
        first = is_first_rank(fit_options.ranks)
        with folder.held() if first else nullcontext():
            resume = resume and folder.is_started()
            if first and resume:
                loader = self.loader("train")
                assert loader is not None
                published = _stored(story_of(self.name, as_published=True))
                check_resumable(folder, config, published, len(loader))
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
        """Raise a `UserError` unless the guide has the model's sites, and something to train."""
        batch = self.first_batch("train", size=CHECKED_POINTS)
        check_guide(self.model, self.guide, *batch)
        if not isinstance(self._guide, str):
            fewer = self.first_batch("train", size=CHECKED_POINTS - 1)
            own.check_trainable(self.model, self.guide, batch, fewer)
        modules = modules_of(self.model, self.guide)
        if self.is_frozen and not any(p.requires_grad for m in modules for p in m.parameters()):
            raise UserError(
                f"the guide {self.guide_name} has no parameters but the model's, and nothing is "
                "left to train: give another --guide, with parameters of its own."
            )

    def config(self, options: FitOptions) -> dict[str, Any]:
        """Return what `Run` needs to build this recipe again, and what was installed."""
        return {
            "recipe": self.name,
            "guide": self.guide_name,
            **({"model_from": self._origin} if self._origin else {}),
            "seed": int(self.seed),
            "data_dir": None if self.data_dir is None else str(Path(self.data_dir).resolve()),
            "limit_train": self.limit_train,
            "settings": _stored(self.story),
            "num_classes": self.splits.num_classes,
            "training": options.as_dict(),
            "versions": {
                "python": platform.python_version(),
                "pyro-latents": pyro_latents.__version__,
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
        if self.is_frozen and options.precision in ROUNDING:
            raise UserError(
                f"--precision {options.precision} would round the model, which is to stay as it "
                f"is: give {options.precision.replace('true', 'mixed')}."
            )


class Run(Face, Measured):
    """A trained recipe on disk.

    Args:
        path: The folder that `Recipe.train` wrote, or its files as opened already; or the name of
            weights that come with the package, if no folder has it (`runs.weights.folder_of`).
        data_dir: Where its data set lies now; None for where it lay, or ``PYRO_LATENTS_DATA``.
        data: Other data than it was trained on, of the same shape, as `Recipe` takes them, whose
            results go to a folder ``on-NAME`` within the run's; or the same where they were arrays
            in memory, which a run does not keep.
        guide: Its guide, or the factory of it, where the run has no name or path of one.

    Raises:
        UserError: if the folder is not a run; and where it is asked for what is damaged.
    """

    def __init__(
        self,
        path: str | Path | RunFolder,
        *,
        data_dir: str | Path | None = None,
        data: Any = None,
        guide: str | Callable | None = None,
    ) -> None:
        folder = path if isinstance(path, RunFolder) else folder_of(path)
        self.config = folder.read_config()
        self.folder = folder_for(folder, data)
        self.path = self.folder.path
        self._data_dir = data_dir
        self._data = data
        self._guide = guide

    @property
    def story(self) -> Story:
        """The hyper-parameters that the run was trained with, if the story still has them all."""
        return stored_story(self.config, self.folder.config_path)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with its trained parameters, on the device that there is."""
        parameters = self.folder.read_parameters()
        given = {name: self.config[name] for name in ("seed", "limit_train")}
        numbers = {field.name: getattr(self.story, field.name) for field in fields(self.story)}
        if self._data is not None:
            fewer = _fewer(self.story.validation, self._data)
            numbers |= {"data": self._data, "data_shape": (), "validation": fewer}
        recipe = Recipe(
            self.config["recipe"],
            guide=self._given_guide(),
            data_dir=self.data_folder(),
            **given,
            **numbers,
        )
        if recipe.story.x_shape != self.story.x_shape:
            raise UserError(
                f"{self.training_path} was trained on {in_words(self.story.x_shape)}, "
                f"and the data given are {in_words(recipe.story.x_shape)}: give data of that "
                "shape."
            )
        if "num_classes" in self.config:
            # What the model takes from its data is among its parameters.
            recipe.stand_in = blank_splits(self.story.x_shape, self.config["num_classes"])
        try:
            Objective(recipe.model, recipe.guide, recipe.loss, 0).load_state_dict(parameters)
        except RuntimeError as error:
            raise UserError(
                f"the checkpoint in {self.training_path} does not fit the recipe "
                f"{recipe.name} with the guide {recipe.guide_name}: it was written by another "
                "version of them; train the run anew."
            ) from error
        for program in modules_of(recipe.model, recipe.guide):
            program.eval()
        if isinstance(recipe.guide, Refined):
            recipe.guide.refining = True
        recipe.freeze(self.config.get("model_from"))
        recipe.to("cuda" if torch.cuda.is_available() else "cpu")
        return recipe

    @property
    def parts(self) -> Parts:
        """The trained parts."""
        return self.recipe

    def _given_guide(self) -> str | Callable:
        """The guide it was opened with, else the name or path that it was trained with."""
        named: str = self.config["guide"]
        if self._guide is not None:
            return self._guide
        if own.is_path(named) or named in self.story.guides:
            return named
        if not named.endswith(OBJECT):
            return _name_of_guide(self.config["recipe"], self.story, named)
        raise UserError(
            f"{self.training_path} was trained with a guide that has no import path, "
            f"{named}: open it with zoo.open_run(..., guide=...), or train it with --guide "
            "package.module:NAME."
        )

    def data_folder(self) -> str | Path | None:
        """Where the data are: as told, else where they were, else where the variable says."""
        before = self.config["data_dir"]
        there = before if before and Path(before).is_dir() else None
        return there if self._data_dir is None else self._data_dir


def _fewer(validation: int, data: Any) -> int:
    """How many points validate, no more than usually do of data that may be smaller."""
    known = isinstance(data, str) and data in SOURCES
    return min(validation, SOURCES[data].validation) if known else validation


def _name_of_guide(recipe: str, story: Story, guide: Any) -> str:
    """What a run keeps of a guide: its name or import path, else what no name can be."""
    if isinstance(guide, str):
        if own.is_path(guide) or guide in story.guides:
            return guide
        raise UserError(
            f"{recipe} has no guide {guide!r}: {did_you_mean(guide, story.guides, '')} "
            f"Its guides are {', '.join(story.guides)}."
        )
    if not callable(guide):
        raise UserError(f"a guide is the name of one or a program; got {guide!r}.")
    return own.path_of(guide) or f"{own.name_of(guide)}{OBJECT}"


def _stored(story: Story) -> dict[str, Any]:
    """The numbers of a story as a file has them."""
    return {
        name: list(plain(value)) if isinstance(value, tuple) else plain(value)
        for name, value in asdict(story).items()
    }
