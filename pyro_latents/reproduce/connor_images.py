"""The experiments on MNIST of Connor et al. (2020): figures 5, 6, 10, 11 and 12."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.checks.classifier import Classifier, features_and_classes, train_classifier
from pyro_latents.data.affine import rotate
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.registration import rotation_between
from pyro_latents.plots import image_rows
from pyro_latents.reproduce.experiment import Budget, Context, Result, experiment, labels
from pyro_latents.runs.recipe import Run
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.metrics import rank_correlation
from pyro_latents.transport import transport

# (M, N_a): log-likelihood and MSE of the paper's table in figure 6.
TABLE = {
    (2, 8): (-744.9376, 0.0286),
    (4, 8): (-744.6206, 0.0236),
    (8, 8): (-756.7853, 0.0233),
    (4, 12): (-745.7737, 0.0222),
    (4, 16): (-744.1835, 0.0222),
}
SHOWN, ORBIT_STEPS = 8, 13
# Training images of the classifier that says whether orbits keep the class.
CLASSIFIED = 20_000
CLASSIFIER_STEPS, TURNED, PARTICLES = 2_000, 300, 100
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
    Budget(name="hours", test_images=1_000, particles=PARTICLES, own={"pairs": [(4, 8)]}),
    Budget(name="paper", particles=PARTICLES),
)
UPRIGHT, ROTATED = ("mnist", "digits"), ("rotated-mnist", "rotated-digits")


@experiment("connor-mnist-table", BUDGETS, takes=UPRIGHT)
def mnist_table(context: Context) -> Result:
    """Log-likelihood and error for numbers of operators and anchors (the table of figure 6)."""
    budget = context.budget
    rows = []
    for m, n in budget.own.get("pairs", TABLE):
        run = _train(context, context.data or "mnist", num_operators=m, num_anchors=n)
        found = run.evaluate(particles=budget.particles, limit_test=budget.test_images)
        theirs = TABLE[m, n] if context.data in (None, "mnist") else (None, None)
        rows.append([m, n, theirs[0], found["log_likelihood"], theirs[1], f"{found['mse']:.4f}"])
    return Result(
        title="Estimated log-likelihood and squared error per pixel of VAELLS",
        columns=["M", "N_a", "LL, paper", "LL", "MSE, paper", "MSE"],
        rows=rows,
        settings=_settings(run.parts, context),
        notes=[
            "The likelihood is a normal of unit variance, as the paper's: 720.5 of each figure "
            "are 784/2 log(2 pi). 100 particles; densities of codes by their maximum."
        ],
    )


@experiment("connor-mnist-paths", BUDGETS, takes=UPRIGHT)
def mnist_paths(context: Context) -> Result:
    """What each operator does to digits, and draws of the posterior (figures 6, 11 and 12)."""
    run = _train(context, context.data or "mnist", num_operators=4, num_anchors=8)
    parts = run.parts.to("cpu")
    x, y = _one_of_each(parts)
    classifier, reach = _classifier(context, parts), _usual_reach(parts)
    figures, rows = [], []
    for m in range(parts.model.operators.num_operators):
        images, change = orbits(parts, x, m, reach[m])
        pictures = {str(int(label)): strip for label, strip in zip(y, images, strict=True)}
        name = f"connor-mnist-operator{m + 1}"
        figures.append(context.save(image_rows(pictures), name))
        norm = torch.linalg.matrix_norm(parts.model.operators.psi[m]).item()
        rows.append([m + 1, norm, change, _kept(classifier, images, y)])
    figures.append(_posterior_draws(context, parts, x[:SHOWN], "connor-mnist-draws"))
    return Result(
        title="Operators learned on digits: what the images of an orbit change, and keep",
        columns=["operator", "Frobenius norm", "squared change per pixel", "class kept, per cent"],
        rows=rows,
        settings=_settings(parts, context),
        figures=figures,
        notes=[
            "Orbits go as far to both sides as the median of the paths that are inferred from the "
            "closest anchor. The class is that which a classifier sees, trained apart on real "
            "images."
        ],
    )


@experiment("connor-rotated-mnist", BUDGETS, takes=ROTATED)
def rotated_mnist(context: Context) -> Result:
    """The operator learned from turned digits turns digits (figures 5 and 10)."""
    run = _train(context, context.data or "rotated-mnist")
    parts = run.parts.to("cpu")
    test = parts.splits.test.take(slice(context.budget.own.get("turned", TURNED)))
    upright = test.extras["upright"]
    images, _ = orbits(parts, upright, 0, _quarter_turn(parts, upright))
    angles = _angles(images)
    classifier = _classifier(context, parts)
    c = torch.linspace(-1, 1, ORBIT_STEPS).expand_as(angles)
    median = angles.median(0).values
    correlation = abs(rank_correlation(c.flatten(), angles.flatten()))
    turned = {
        "class kept over half a turn, per cent": images,
        "the same of the test images themselves, turned as far": _turned(upright),
        "the same of their reconstructions": _turned(images[:, ORBIT_STEPS // 2]),
    }
    strips = {str(i): images[i] for i in range(SHOWN)}
    return Result(
        title="The operator learned on turned digits",
        columns=["what", "value"],
        rows=[
            ["angle of the decoded image against the coefficient, rank correlation", correlation],
            ["the same of the median angle of all images", abs(rank_correlation(c[0], median))],
            ["median angle between the ends, degrees", (median[-1] - median[0]).abs().item()],
            *((what, _kept(classifier, x, labels(test))) for what, x in turned.items()),
        ],
        settings=_settings(parts, context),
        figures=[
            context.save(image_rows(strips), "connor-rotated-mnist-orbits"),
            _posterior_draws(context, parts, test.x[:SHOWN], "connor-rotated-mnist-draws"),
        ],
        notes=[
            "Orbits go a quarter turn of the image to both sides, as the angles near the middle "
            "foretell it. Angles are of the most similar turn of the reconstruction; the class is "
            "that which a classifier sees, trained apart on real images turned at random."
        ],
    )


def orbits(parts: Parts, x: Tensor, operator: int, reach: float) -> tuple[Tensor, float]:
    """Decode codes of images, moved along one operator to both sides by as much as ``reach``.

    Returns:
        The images, of shape `batch steps channels height width` with the reconstructions in the
        middle, and the mean squared change of a pixel from the middle to the ends.
    """
    psi = parts.model.operators.psi.detach()[operator : operator + 1]
    c = reach * torch.linspace(-1, 1, ORBIT_STEPS, device=x.device)
    images = _moved(parts.model, x, psi, c[None, :, None])
    middle = images[:, ORBIT_STEPS // 2, None]
    change = (images[:, [0, -1]] - middle).square().mean().item()
    return images, change


def _moved(model: Any, x: Tensor, psi: Tensor, c: Tensor) -> Tensor:
    """Images of codes moved by coefficients, of shape `batch moves num_operators`."""
    with torch.no_grad():
        start = model.encoder(x) / model.operators.scale
        moved = transport(psi, c, start[:, None])
        return model.likelihood(model.decoder(model.operators.scale * moved)).mean


def _usual_reach(parts: Parts) -> list[float]:
    """How far the median path goes along each operator, from the closest anchor to an image."""
    model, test = parts.model, parts.splits.test.take(slice(TURNED))
    with torch.no_grad():
        codes = model.encoder(test.x) / model.operators.scale
        starts = model.starts(test.y)
        ends = codes[:, None].expand_as(starts)
        c, objective = model.operators.infer(starts, ends, model.inference_weight)
    closest = c[torch.arange(len(c)), objective.argmin(1)]
    return closest.abs().median(0).values.tolist()


def _quarter_turn(parts: Parts, x: Tensor) -> float:
    """The coefficient that turns images by 90 degrees if they go on as they begin to turn."""
    psi = parts.model.operators.psi.detach()[0]
    speed = torch.linalg.eigvals(psi).imag.abs().max()
    norm = torch.linalg.matrix_norm(psi, 2)
    # A quarter turn of the fastest rotation, or a norm of three where nothing rotates.
    reach = float(torch.minimum(torch.pi / 2 / speed, 3 / norm).clamp_max(1e6))
    median = _angles(orbits(parts, x, 0, reach / 2)[0]).median(0).values
    c = torch.linspace(-0.5, 0.5, ORBIT_STEPS) * reach
    turned = (c * median).sum() / c.square().sum()
    # An operator that turns nothing is followed no further than it would take to see it turn.
    return min(90 / max(abs(turned.item()), 1e-6), 10 * reach)


def _angles(images: Tensor) -> Tensor:
    """By how many degrees each image of an orbit is turned against the middle one."""
    middle = images[:, ORBIT_STEPS // 2]
    turned = [
        rotation_between(middle, image, max_angle=180.0, steps=121) for image in images.unbind(1)
    ]
    return torch.stack(turned, 1)


def _turned(x: Tensor) -> Tensor:
    """Images turned by minus to plus 90 degrees, as the orbits of a rotation would be."""
    angle = torch.linspace(-torch.pi / 2, torch.pi / 2, ORBIT_STEPS).to(x)
    return rotate(x[:, None], angle.expand(len(x), -1))


def _train(context: Context, data: str, **numbers: Any) -> Run:
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


def _classifier(context: Context, parts: Parts) -> Classifier:
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


def _kept(classifier: Classifier, images: Tensor, y: Tensor) -> float:
    """How many images of orbits are of their digit's class, in per cent."""
    classes = features_and_classes(classifier, images.flatten(0, 1))[1]
    return 100 * classes.eq(y.repeat_interleave(images.shape[1])).double().mean().item()


def _posterior_draws(context: Context, parts: Parts, x: Tensor, name: str) -> Path:
    """Draws around each image, with coefficients of unit spread in norm."""
    torch.manual_seed(context.seed)
    psi = parts.model.operators.psi.detach()
    norms = torch.linalg.matrix_norm(psi, 2).clamp_min(1e-12)
    c = torch.distributions.Laplace(0.0, 0.5).sample((len(x), SHOWN, len(psi))) / norms
    draws = _moved(parts.model, x, psi, c.clamp(-3 / norms, 3 / norms))
    rows = {str(i): torch.cat([x[i : i + 1], draws[i]]) for i in range(len(x))}
    return context.save(image_rows(rows), name)


def _settings(parts: Parts, context: Context) -> dict[str, Any]:
    return {
        **asdict(parts.story),
        "training_images": len(parts.splits.train),
        "provenance": parts.splits.provenance,
        "budget": context.budget.name,
    }
