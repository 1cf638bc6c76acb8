"""A recipe with its parts built, and the run it trains."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch import nn

from pyro_latents.data.batches import Batches, BatchMaker
from pyro_latents.data.examples import Splits
from pyro_latents.data.sources import load
from pyro_latents.errors import UserError
from pyro_latents.evaluation.calibration import calibrate
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.guides import check_guide
from pyro_latents.guides.refined import Refined
from pyro_latents.plots import learning_curve, rank_ecdfs, save
from pyro_latents.recipes.registry import settings_of
from pyro_latents.recipes.settings import Settings
from pyro_latents.training.options import FitOptions
from pyro_latents.training.run_folder import RunFolder

# Enough for stories that compare data points with each other, and quickly run.
CHECKED_POINTS = 4
RECORDED_PACKAGES = ("pyro-latents", "pyro-ppl", "torch", "torchvision", "lightning", "numpy")


class Recipe:
    """A story on a data set, with a guide and a seed: its parts are plain Pyro objects.

    Args:
        name: The recipe's name.
        settings: The hyper-parameters.
        guide: The name of a guide of the story, or a guide: any callable with the model's
            arguments and latent sites.
        seed: Of the initial parameters, the batches and all draws.
        data_dir: Where data sets lie; None for ``PYRO_LATENTS_DATA``.
        limit_train: Training points to use, None for all.

    Raises:
        UserError: if the story has no such guide.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        guide: str | Callable | None = None,
        seed: int = 0,
        data_dir: str | Path | None = None,
        limit_train: int | None = None,
    ) -> None:
        guide = settings.guides[0] if guide is None else guide
        if isinstance(guide, str) and guide not in settings.guides:
            near = get_close_matches(guide, settings.guides, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            known = ", ".join(settings.guides)
            raise UserError(f"{name} has no guide {guide!r}: {hint}Its guides are {known}.")
        self.name = name
        self.settings = settings
        self.seed = seed
        self.data_dir = data_dir
        self.limit_train = limit_train
        self._guide = guide

    @property
    def guide_name(self) -> str:
        """The name of the guide; that of its class or function if the user gave a guide."""
        if isinstance(self._guide, str):
            return self._guide
        return getattr(self._guide, "__name__", type(self._guide).__name__)

    @cached_property
    def splits(self) -> Splits:
        """The data, loaded when first asked for."""
        return load(
            self.settings.data,
            self.data_dir,
            validation=self.settings.validation,
            limit_train=self.limit_train,
        )

    @cached_property
    def model(self) -> nn.Module:
        """The generative model, with its initial parameters."""
        with _seeded(self.seed):
            return self.settings.build_model(lambda: self.splits)

    @cached_property
    def guide(self) -> Any:
        """The guide, with its initial parameters."""
        if not isinstance(self._guide, str):
            return self._guide
        with _seeded(self.seed + 1):
            return self.settings.build_guide(self._guide, self.model)

    @cached_property
    def loss(self) -> ELBO:
        """The objective, a sum over the data plate in nats."""
        return self.settings.build_loss()

    def batches(self, split: str = "train") -> BatchMaker:
        """Return the maker of the batches of ``train``, ``validation`` or ``test``."""
        return self.settings.build_batches(getattr(self.splits, split), self.splits)

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
            epochs: Passes over the data; those of the settings unless ``steps`` is given.
            steps: Gradient steps, in the place of epochs.
            resume: Whether to go on with the run in ``out``, exactly as if it had not stopped.
            **options: Further `FitOptions`, such as ``devices``.

        Raises:
            UserError: if ``out`` holds something else, or training fails for a reason that the
                user can mend.
        """
        # Lightning takes seconds to import, and only training needs it.
        from pyro_latents.training.compiled import compile_networks
        from pyro_latents.training.fit import check_hardware, fit
        from pyro_latents.training.ranks import is_first_rank

        if epochs is None and steps is None:
            epochs = self.settings.epochs
        fit_options = FitOptions(epochs=epochs, steps=steps, **options)
        folder = RunFolder(out or _free_folder(self.name))
        module = self.settings.training_module(self)
        self._check_batch_size(fit_options.ranks)
        check_hardware(fit_options)
        # Missing or broken data, or a guide that does not fit, must not leave a folder behind.
        self.check_guide()
        if fit_options.compile:
            compile_networks(self.model, self.guide)
        # The others learn from it which folder it is.
        if is_first_rank(fit_options.ranks):
            self._prepare(folder, fit_options, resume)
        folder = fit(
            module,
            self._build_batches,
            folder,
            fit_options,
            resume=resume,
            gradient_clip=self.settings.gradient_clip,
            patience=self.settings.patience,
        )
        return Run(folder.path)

    def check_guide(self) -> None:
        """Check on a few training points that the guide has the model's sites.

        Raises:
            GuideMismatch: if it has not; the message says which side to change.
        """
        examples = self.splits.train.take(slice(CHECKED_POINTS))
        batches = self.settings.build_batches(examples, self.splits)
        check_guide(self.model, self.guide, *Batches(batches, len(examples), seed=0).batch(0))

    def config(self, options: FitOptions) -> dict[str, Any]:
        """Return what `Run` needs to build this recipe again, and what was installed."""
        return {
            "recipe": self.name,
            "guide": self.guide_name,
            "seed": self.seed,
            "data_dir": None if self.data_dir is None else str(Path(self.data_dir).resolve()),
            "limit_train": self.limit_train,
            "settings": asdict(self.settings),
            "training": options.as_dict(),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in RECORDED_PACKAGES},
            },
        }

    def _build_batches(
        self, split: str, device: torch.device, rank: int, world_size: int
    ) -> Batches | None:
        examples = getattr(self.splits, split)
        if not len(examples):
            return None
        maker = self.settings.build_batches(examples.to(device), self.splits.to(device))
        return Batches(
            maker,
            self.settings.batch_size,
            seed=self.seed,
            shuffle=split == "train",
            # A smaller last batch would weigh its data points more than the others do.
            drop_last=split == "train" and len(examples) >= self.settings.batch_size,
            rank=rank,
            world_size=world_size,
        )

    def _prepare(self, folder: RunFolder, options: FitOptions, resume: bool) -> None:
        if resume and folder.config_path.exists():
            self._check_same(folder.read_config(), folder)
            folder.write_config(self.config(options))
        else:
            folder.create(self.config(options))

    def _check_batch_size(self, devices: int) -> None:
        if self.settings.batch_size % devices:
            raise UserError(
                f"--batch-size {self.settings.batch_size} cannot be shared by {devices} devices: "
                f"give a multiple of {devices}."
            )

    def _check_same(self, config: dict[str, Any], folder: RunFolder) -> None:
        """Raise if the run in the folder is of another recipe: its parameters would not fit."""
        mine = self.config(FitOptions(epochs=1))
        # A run from before a setting existed had its default.
        theirs = {**asdict(settings_of(self.name)), **config, **config.get("settings", {})}
        ours = {**mine, **mine["settings"]}
        # A run may be resumed for more epochs, and elsewhere.
        free = {"settings", "epochs", "data_dir", "training", "versions"}
        for key in ours.keys() - free:
            if theirs.get(key) != ours[key]:
                raise UserError(
                    f"{folder.path} was trained with {key} {theirs.get(key)}, not {ours[key]}: "
                    "resume with the same options, or give another --out."
                )


class Run:
    """A trained recipe on disk.

    Args:
        path: The folder that `Recipe.train` wrote.

    Raises:
        UserError: if the folder is not a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        self.path = self.folder.path
        self.config = self.folder.read_config()

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured of the run so far."""
        return self.folder.read_metrics()

    @property
    def settings(self) -> Settings:
        """The hyper-parameters that the run was trained with."""
        kind = type(settings_of(self.config["recipe"]))
        known = self.config["settings"]
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with its trained parameters.

        Raises:
            UserError: if there is no checkpoint, it is damaged, or does not fit the recipe.
        """
        weights = self.folder.read_weights()
        recipe = Recipe(
            self.config["recipe"],
            self.settings,
            guide=self.config["guide"],
            seed=self.config["seed"],
            data_dir=self.config["data_dir"],
            limit_train=self.config["limit_train"],
        )
        try:
            recipe.settings.training_module(recipe).load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                f"the checkpoint in {self.path} does not fit the recipe {recipe.name}: it was "
                "written by another version of it; train the run anew."
            ) from error
        recipe.model.eval()
        recipe.guide.eval()
        if isinstance(recipe.guide, Refined):
            recipe.guide.refining = True
        return recipe

    def evaluate(
        self,
        *,
        particles: int = 1000,
        likelihood_points: int = 1000,
        limit_test: int | None = None,
    ) -> dict[str, float]:
        """Measure the run on test data and add the figures to ``metrics.json``.

        Args:
            particles: Importance samples for the marginal likelihood of a data point.
            likelihood_points: Test points to estimate it for, the first ones.
            limit_test: Test points to use, None for all.
        """
        found = self.measure(
            particles=particles, likelihood_points=likelihood_points, limit_test=limit_test
        )
        self.folder.add_metrics(found)
        return self.metrics

    def measure(
        self, *, particles: int, likelihood_points: int, limit_test: int | None
    ) -> dict[str, float]:
        """Return what `evaluate` measures, and write nothing; the arguments are its own."""
        if limit_test is not None and limit_test < 1:
            raise UserError(f"--limit-test must be at least 1; got {limit_test}.")
        sampling = ImportanceSampling(particles, likelihood_points)
        batches = self._test_batches(limit_test)
        metrics = self.recipe.settings.metrics(self.recipe, batches, sampling)
        return {"test_points": len(batches), **metrics}

    def calibrate(self, *, points: int = 500, draws: int = 200) -> tuple[dict[str, float], Path]:
        """Rank true latent variables under the guide, on data simulated from the model.

        Args:
            points: Data points to simulate.
            draws: Of the guide for each of them.

        Returns:
            The p-value of uniform ranks by site, also added to ``metrics.json``, and the path of
            the figure.
        """
        if points < 2 or draws < 1:
            raise UserError(f"give --points 2 and --draws 1 or more; got {points} and {draws}.")
        torch.manual_seed(self.recipe.seed)
        batches = self._test_batches(points)
        batch = Batches(batches, len(batches), seed=self.recipe.seed, shuffle=False).batch(0)
        found = calibrate(self.recipe.model, self.recipe.guide, *batch, num_draws=draws)
        p_values = found.p_values()
        self.folder.add_metrics({f"calibration_p_{k}": v for k, v in p_values.items()})
        path = self.folder.figures_path / "calibration.png"
        return p_values, save(rank_ecdfs(found.ranks), path)

    def plot(self) -> list[Path]:
        """Draw the learning curve and the story's figures; return the pictures' paths."""
        torch.manual_seed(self.recipe.seed)
        figures = self.recipe.settings.figures(self.recipe, self._test_batches())
        figures["history"] = learning_curve(self.folder.history_path)
        folder = self.folder.figures_path
        return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]

    def _test_batches(self, limit: int | None = None) -> BatchMaker:
        """The maker of the test batches, on the device that there is, beside the parameters."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.recipe.model.to(device)
        self.recipe.guide.to(device)
        splits = self.recipe.splits.to(device)
        return self.recipe.settings.build_batches(splits.test.take(slice(limit)), splits)


def _free_folder(name: str) -> Path:
    """The first of ``runs/NAME``, ``runs/NAME-2``, ... that is not there."""
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Run with torch's generator at a seed, and put its state back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
