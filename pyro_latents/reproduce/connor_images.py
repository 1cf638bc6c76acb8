"""The experiments on MNIST of Connor et al. (2020): figures 6, 11 and 12."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.checks.classifier import Classifier, train_classifier
from pyro_latents.data.affine import rotate
from pyro_latents.data.examples import Examples
from pyro_latents.plots import image_rows
from pyro_latents.reproduce.connor_controls import closest_paths, kept, kept_with_controls
from pyro_latents.reproduce.experiment import Budget, Context, Result, experiment, labels
from pyro_latents.runs.recipe import Run
from pyro_latents.stories.story import Parts
from pyro_latents.transport import transport

# (M, N_a): log-likelihood and MSE of the paper's table in figure 6.
TABLE = {
    (2, 8): (-744.9376, 0.0286),
    (4, 8): (-744.6206, 0.0236),
    (8, 8): (-756.7853, 0.0233),
    (4, 12): (-745.7737, 0.0222),
    (4, 16): (-744.1835, 0.0222),
}
# Columns of the table, by the metric's name.
EVIDENCE = {
    "log_likelihood": "evidence",
    "k_hat_above_threshold": "of it k-hat above its threshold, per cent",
    "effective_sample_size": "effective sample size",
    "normal_per_class_log_likelihood": "evidence of a normal per class",
    "normal_log_likelihood": "evidence of one normal",
}
SHOWN, ORBIT_STEPS = 8, 13
# Training images of the classifier that says whether orbits keep the class.
CLASSIFIED = 20_000
CLASSIFIER_STEPS, TURNED, PARTICLES = 2_000, 300, 200
BUDGETS = (
    Budget(
        name="quick",
        images=2_000,
        steps=1_500,
        numbers={"warm_up": 1_000, "validation": 0},
        test_images=100,
        particles=PARTICLES,
        own={"pairs": [(4, 8), (2, 8)]},
    ),
    Budget(name="hours", test_images=500, particles=PARTICLES, own={"pairs": [(4, 8)]}),
    # The images are as many as the paper's.
    Budget(name="paper", test_images=500, particles=PARTICLES),
)
UPRIGHT = ("mnist", "digits")


@experiment("connor-mnist-table", BUDGETS, takes=UPRIGHT)
def mnist_table(context: Context) -> Result:
    """Log-likelihood and error for numbers of operators and anchors (the table of figure 6)."""
    budget = context.budget
    rows = []
    for m, n in budget.own.get("pairs", TABLE):
        run = trained_run(context, context.data or "mnist", num_operators=m, num_anchors=n)
        found = run.evaluate(particles=budget.particles, limit_test=budget.test_images)
        theirs = TABLE[m, n] if context.data in (None, "mnist") else (None, None)
        rows.append([m, n, theirs[0], found["connor_log_likelihood"], *_errors(theirs[1], found)])
        rows[-1] += [found[name] for name in EVIDENCE]
    return Result(
        title="Log-likelihood and squared error per pixel of VAELLS",
        columns=[
            "M",
            "N_a",
            "estimate of Connor et al., paper",
            "the same, ours",
            "MSE of sampled codes, paper",
            "the same, ours",
            "MSE of mean codes",
            *EVIDENCE.values(),
        ],
        rows=rows,
        settings=settings_of(run.parts, context),
        notes=[
            "The likelihood is a normal of unit variance, as the paper's: 720.5 of each figure "
            "are 784/2 log(2 pi). The estimate of Connor et al. is what their table was computed "
            "by, with 100 particles: no likelihood and no bound. The evidence is log p(x) given "
            f"the class, by {budget.particles} importance samples of an anchor, coefficients and "
            "a code; beside it that of normals on the same codes under the same decoder, one for "
            "each class and one without classes."
        ],
    )


@experiment("connor-mnist-paths", BUDGETS, takes=UPRIGHT)
def mnist_paths(context: Context) -> Result:
    """What each operator does to digits, and draws of the posterior (figures 6, 11 and 12)."""
    run = trained_run(context, context.data or "mnist", num_operators=4, num_anchors=8)
    parts = run.parts.to("cpu")
    x, y = _one_of_each(parts)
    test = parts.splits.test.take(slice(context.budget.own.get("turned", TURNED)))
    rows = kept_with_controls(
        parts, own_classifier(context, parts), test.x, labels(test), seed=context.seed
    )
    figures = []
    for m, reach in enumerate(_usual_reach(parts)):
        images = orbits(parts, x, m, reach)
        pictures = {str(int(label)): strip for label, strip in zip(y, images, strict=True)}
        figures.append(context.save(image_rows(pictures), f"connor-mnist-operator{m + 1}"))
    figures.append(posterior_draws(context, parts, x[:SHOWN], "connor-mnist-draws"))
    return Result(
        title="Digits moved in the latent space: how many keep their class",
        columns=["what", "class kept, per cent", "standard error"],
        rows=rows,
        settings=settings_of(parts, context) | {"images": len(test)},
        figures=figures,
        notes=[
            "Orbits go to both sides, as far as the median of the paths that are inferred from "
            "the closest anchor, or a part of that; the control moves each code as far in a "
            "random direction. Paths and lines are looked at after a quarter, half and three "
            "quarters. The class is that which a classifier sees, trained apart on real images."
        ],
    )


def _errors(theirs: float | None, found: dict[str, float]) -> list[Any]:
    """Squared errors, of which two digits would say too little."""
    return [theirs, *(f"{found[name]:.4f}" for name in ("sampled_mse", "mse"))]


def orbits(parts: Parts, x: Tensor, operator: int, reach: float) -> Tensor:
    """Decode codes of images, moved along one operator to both sides by as much as ``reach``.

    Returns:
        The images, of shape `batch steps channels height width` with the reconstructions in the
        middle.
    """
    psi = parts.model.operators.psi.detach()[operator : operator + 1]
    c = reach * torch.linspace(-1, 1, ORBIT_STEPS, device=x.device)
    return moved(parts.model, x, psi, c[None, :, None])


def moved(model: Any, x: Tensor, psi: Tensor, c: Tensor) -> Tensor:
    """Images of codes moved by coefficients, of shape `batch moves num_operators`."""
    with torch.no_grad():
        return model.observation(transport(psi, c, model.code(x)[:, None])).mean


def _usual_reach(parts: Parts) -> list[float]:
    """How far the median path goes along each operator, from the closest anchor to an image."""
    model, test = parts.model, parts.splits.test.take(slice(TURNED))
    with torch.no_grad():
        _, c = closest_paths(model, model.code(test.x), test.y)
    reach: list[float] = c.abs().median(0).values.tolist()
    return reach


def trained_run(context: Context, data: str, **numbers: Any) -> Run:
    """Train a recipe, or take up its run, in a folder that says the numbers."""
    own = [f"{name.removeprefix('num_')[0]}{value}" for name, value in numbers.items()]
    folder = " ".join(["vaells", data, *own])
    run = context.job(f"vaells-{data}", folder, numbers=numbers).train(progress=True)
    # What is drawn to measure a run does not depend on whether it was trained just now.
    torch.manual_seed(context.seed)
    return run


def _one_of_each(parts: Parts) -> tuple[Tensor, Tensor]:
    y = labels(parts.splits.test)
    rows = torch.stack([(y == label).nonzero()[0, 0] for label in y.unique()])
    return parts.splits.test.x[rows], y[rows]


def own_classifier(context: Context, parts: Parts) -> Classifier:
    """A classifier that is trained apart, on images turned as those of the orbits are."""
    train = parts.splits.train.take(slice(CLASSIFIED))
    x = train.x
    if "upright" in train.extras:
        angle = torch.pi * (torch.rand(len(x), device=x.device) - 0.5)
        x = rotate(train.extras["upright"], angle)
    return train_classifier(
        Examples(x, train.y),
        parts.splits.num_classes,
        steps=context.budget.own.get("classifier_steps", CLASSIFIER_STEPS),
        seed=context.seed,
    )


def kept_percent(classifier: Classifier, images: Tensor, y: Tensor) -> float:
    """How many images of orbits are of their digit's class, in per cent."""
    return 100 * kept(classifier, images, y).double().mean().item()


def posterior_draws(context: Context, parts: Parts, x: Tensor, name: str) -> Path:
    """Draws around each image, with coefficients of unit spread in norm."""
    torch.manual_seed(context.seed)
    psi = parts.model.operators.psi.detach()
    norms = torch.linalg.matrix_norm(psi, 2).clamp_min(1e-12)
    c = torch.distributions.Laplace(0.0, 0.5).sample((len(x), SHOWN, len(psi))) / norms
    draws = moved(parts.model, x, psi, c.clamp(-3 / norms, 3 / norms))
    rows = {str(i): torch.cat([x[i : i + 1], draws[i]]) for i in range(len(x))}
    return context.save(image_rows(rows), name)


def settings_of(parts: Parts, context: Context) -> dict[str, Any]:
    """Return what a result says of the training of its run."""
    return {
        **asdict(parts.story),
        "training_images": len(parts.splits.train),
        "provenance": parts.splits.provenance,
        "budget": context.budget.name,
    }
