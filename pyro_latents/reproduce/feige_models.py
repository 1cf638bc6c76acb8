"""The models and classifiers of Feige (2019), and their training for a table or figure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_latents import zoo
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.data.folders import data_folder
from pyro_latents.evaluation.set_classifiers import fit_classifier, network_error
from pyro_latents.files import write_atomically
from pyro_latents.nets.feige import CodeClassifier, LabelClassifier
from pyro_latents.recipes.equivae_metrics import classification_errors
from pyro_latents.recipes.recipe import Recipe, Run
from pyro_latents.reproduce.experiment import Context
from pyro_latents.reproduce.parallel import in_processes

# Of the quick budget, about 18 minutes on one core for MNIST: all images, a shorter schedule.
QUICK_EPOCHS, QUICK_HALVE_EVERY = 16, 4
# Of the quick budget with few labels: a part of the images, since every class is decoded.
QUICK_IMAGES, QUICK_SEMI_EPOCHS = 20_000, 20
# Epochs with few labels, by data and labels (section 3.2).
SEMI_EPOCHS = {
    "mnist": {100: 20, 600: 25, 1000: 30, 3000: 35},
    "svhn": {1000: 20, 3000: 30},
}
# Of the classifiers on codes, and of benchmarks that have few labels.
CLASSIFIER_STEPS = 3_000
DROPOUT = 0.5

Errors = dict[str, float]


@dataclass(frozen=True)
class Spec:
    """A model to train.

    Args:
        data: The data source.
        seed: Of everything that is drawn, the labelled points among it.
        labels: The number of labelled points, None for all.
        settings: Settings other than the recipe's.
    """

    data: str
    seed: int = 0
    labels: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        parts = ["equivae", self.data, *(f"{k}{v}" for k, v in sorted(self.settings.items()))]
        if self.labels is not None:
            parts.append(f"{self.labels}-labels")
        return "-".join([*parts, f"seed{self.seed}"]).replace("_", "-")


def build(spec: Spec, context: Context) -> Recipe:
    """Return the recipe of a spec, with the schedule of the context's budget."""
    # The embedded digits are small whatever the budget.
    quick = context.budget == "quick" and spec.data in SEMI_EPOCHS
    settings: dict[str, Any] = {}
    limit = None
    if spec.labels is None:
        story = "equivae"
        if quick:
            settings = {"epochs": QUICK_EPOCHS, "halve_every": QUICK_HALVE_EVERY}
    else:
        story = "equivae-semi"
        settings = {"labels": spec.labels, "label_seed": spec.seed}
        epochs = SEMI_EPOCHS.get(spec.data, {}).get(spec.labels)
        if quick:
            limit, epochs = QUICK_IMAGES, QUICK_SEMI_EPOCHS
        if epochs is not None:
            settings["epochs"] = epochs
    return zoo.recipe(
        f"{story}-{spec.data}",
        seed=spec.seed,
        data_dir=context.data_dir,
        limit_train=limit,
        **{**settings, **spec.settings},
    )


def train_one(job: tuple[Context, Spec]) -> Path:
    """Train a model into a folder of the experiment, and return the folder."""
    context, spec = job
    recipe = build(spec, context)
    return context.train(recipe, spec.folder, epochs=recipe.settings.epochs, progress=False).path


def measure_one(job: tuple[Context, Spec, str]) -> Errors:
    """Train a model or the benchmark, and return its errors on test data, in per cent.

    The third part of the job is ``equivae`` or ``benchmark``.
    """
    context, spec, kind = job
    began = time.perf_counter()
    if kind == "benchmark":
        recipe = build(spec, context)
        splits = on_device(recipe.splits)
        network = benchmark(recipe, splits, context)
        assert splits.test.y is not None
        found = {"benchmark": network_error(network, splits.test.x, splits.test.y)}
    else:
        recipe = Run(train_one((context, spec))).recipe
        found = equivae_errors(recipe, context)
    return {**found, "seconds": time.perf_counter() - began}


def equivae_errors(recipe: Recipe, context: Context) -> Errors:
    """Return the errors of the distance rule, of `q(y | x)`, and of a network on `f_inv(x)`."""
    splits = on_device(recipe.splits)
    recipe.model.to(splits.test.device)
    recipe.guide.to(splits.test.device)
    found = classification_errors(recipe, splits.test)
    labelled = recipe.settings.labelled(splits)
    codes = [recipe.model.embed(part.x) for part in (labelled, splits.test)]
    return {**found, "network": code_error(codes, [labelled, splits.test], recipe.seed)}


def code_error(codes: list[Tensor], parts: list[Examples], seed: int) -> float:
    """Return the test error of the dropout network on codes, standardised by the labelled ones.

    Args:
        codes: Those of the labelled points and of the test points.
        parts: The labelled points and the test points, for their classes.
        seed: Of the training.
    """
    labelled, test = parts
    assert labelled.y is not None
    assert test.y is not None
    centre, spread = codes[0].mean(0), codes[0].std(0).clamp_min(1e-6)
    known, tested = ((part - centre) / spread for part in codes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = CodeClassifier(codes[0].shape[1], int(labelled.y.max()) + 1, 0.2)
    network = network.to(known.device)
    fit_classifier(network, known, labelled.y, steps=CLASSIFIER_STEPS, seed=seed)
    return network_error(network, tested, test.y)


def benchmark(recipe: Recipe, splits: Splits, context: Context) -> nn.Module:
    """Return the benchmark classifier, trained on the labelled points of a recipe.

    It has the body of `f_inv` and two dropout layers, and sees as many points as the EquiVAE; with
    few labels, `CLASSIFIER_STEPS` batches.
    """
    settings = recipe.settings
    labelled = settings.labelled(splits)
    assert labelled.y is not None
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = LabelClassifier(settings.x_shape, splits.num_classes, settings.width, DROPOUT)
    steps = CLASSIFIER_STEPS
    if settings.story == "equivae":
        steps = settings.epochs * max(1, len(labelled) // settings.batch_size)
    network = network.to(labelled.device)
    fit_classifier(network, labelled.x, labelled.y, steps=steps, seed=recipe.seed)
    return network


def benchmark_file(job: tuple[Context, Spec]) -> Path:
    """Train the benchmark classifier and leave its parameters in a file of the experiment."""
    context, spec = job
    path = context.out / f"benchmark-{spec.folder}.pt"
    if not path.exists():
        recipe = build(spec, context)
        state = benchmark(recipe, on_device(recipe.splits), context).cpu().state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: torch.save(state, file))
    return path


def model_and_benchmark(context: Context, spec: Spec) -> tuple[Recipe, nn.Module]:
    """Train a model and the benchmark classifier side by side and return both."""
    paths = in_processes(_either, [(context, spec, False), (context, spec, True)])
    recipe = Run(paths[0]).recipe
    settings = recipe.settings
    network = LabelClassifier(settings.x_shape, recipe.model.num_classes, settings.width, DROPOUT)
    network.load_state_dict(torch.load(paths[1], weights_only=True))
    return recipe, network.eval()


def settings_of(context: Context, spec: Spec) -> dict[str, Any]:
    """Return what a result says of the training of its models."""
    recipe = build(spec, context)
    names = ["data", "epochs", "batch_size", "learning_rate", "halve_every"]
    names += ["r_dim", "v_dim", "m_max", "width", "decoder", "dropout"]
    if spec.labels is not None:
        names += ["labelled_weight", "label_weight", "label_posterior", "label_dropout"]
        names += ["warm_up", "ramp", "label_delay", "label_ramp"]
    return {
        **{name: getattr(recipe.settings, name) for name in names},
        "optimiser": "Adam",
        "training_images": len(recipe.splits.train),
        "provenance": recipe.splits.provenance,
    }


def sources(context: Context) -> list[str]:
    """Return the data of an experiment: MNIST, and on the paper's budget SVHN where it is."""
    if context.data is not None:
        return [context.data]
    folder = data_folder(context.data_dir)
    found = any((part / "train_32x32.mat").is_file() for part in (folder, folder / "SVHN"))
    return ["mnist", "svhn"] if found and context.budget == "paper" else ["mnist"]


def on_device(splits: Splits) -> Splits:
    """Return the splits where there is most to compute with."""
    return splits.to("cuda" if torch.cuda.is_available() else "cpu")


def _either(job: tuple[Context, Spec, bool]) -> Path:
    context, spec, is_benchmark = job
    return (benchmark_file if is_benchmark else train_one)((context, spec))
