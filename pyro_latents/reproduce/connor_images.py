"""The experiments on MNIST of Connor et al. (2020): figures 5, 6, 10, 11 and 12."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents import zoo
from pyro_latents.checks.classifier import Classifier, features_and_classes, train_classifier
from pyro_latents.data.affine import rotate
from pyro_latents.data.examples import Examples
from pyro_latents.data.sources import SHAPES
from pyro_latents.errors import UserError
from pyro_latents.evaluation.paths import rank_correlation
from pyro_latents.evaluation.registration import rotation_between
from pyro_latents.plots import image_rows, save
from pyro_latents.recipes.recipe import Recipe, Run
from pyro_latents.reproduce.experiment import Context, Result, experiment
from pyro_latents.transport import transport

# (M, N_a): log-likelihood and MSE of the paper's table in figure 6.
TABLE = {
    (2, 8): (-744.9376, 0.0286),
    (4, 8): (-744.6206, 0.0236),
    (8, 8): (-756.7853, 0.0233),
    (4, 12): (-745.7737, 0.0222),
    (4, 16): (-744.1835, 0.0222),
}
QUICK: dict[str, Any] = {"limit_train": 2_000, "steps": 1_500, "warm_up": 1_000}
# What of the table is trained, and the test images of it, where not all.
PAIRS = {"quick": [(4, 8), (2, 8)], "hours": [(4, 8)]}
TESTED, PARTICLES = {"quick": 100, "hours": 1_000}, 100
SHOWN, ORBIT_STEPS = 8, 13
TURNED = 300
# Training images of the classifier that says whether orbits keep the class, and its steps.
CLASSIFIED, CLASSIFIER_STEPS = 20_000, 2_000


@experiment("connor-mnist-table")
def mnist_table(context: Context) -> Result:
    """Log-likelihood and error for numbers of operators and anchors (the table of figure 6)."""
    pairs = PAIRS.get(context.budget, list(TABLE))
    rows: list[list[Any]] = []
    for m, n in pairs:
        run = _train(context, context.data or "mnist", num_operators=m, num_anchors=n)
        found = run.evaluate(particles=PARTICLES, limit_test=TESTED.get(context.budget))
        theirs = TABLE[m, n] if context.data in (None, "mnist") else (None, None)
        rows.append([m, n, theirs[0], found["log_likelihood"], theirs[1], f"{found['mse']:.4f}"])
    return Result(
        title="Estimated log-likelihood and squared error per pixel of VAELLS",
        columns=["M", "N_a", "LL, paper", "LL", "MSE, paper", "MSE"],
        rows=rows,
        settings=_settings(run.recipe, context),
        notes=[
            "The likelihood is a normal of unit variance, as the paper's: 720.5 of each figure "
            "are 784/2 log(2 pi). 100 particles; densities of codes by their maximum."
        ],
    )


@experiment("connor-mnist-paths")
def mnist_paths(context: Context) -> Result:
    """What each operator does to digits, and draws of the posterior (figures 6, 11 and 12)."""
    run = _train(context, context.data or "mnist", num_operators=4, num_anchors=8)
    recipe = run.recipe
    x, y = _one_of_each(recipe)
    classifier, reach = _classifier(context, recipe), _usual_reach(recipe)
    figures, rows = [], []
    for m in range(recipe.settings.num_operators):
        images, change = orbits(recipe, x, m, reach[m])
        pictures = {str(int(label)): strip for label, strip in zip(y, images, strict=True)}
        path = context.out / f"connor-mnist-operator{m + 1}.png"
        figures.append(save(image_rows(pictures), path))
        norm = torch.linalg.matrix_norm(recipe.model.operators.psi[m]).item()
        rows.append([m + 1, norm, change, _kept(classifier, images, y)])
    figures.append(_posterior_draws(context, recipe, x[:SHOWN], "connor-mnist-draws"))
    return Result(
        title="Operators learned on digits: what the images of an orbit change, and keep",
        columns=["operator", "Frobenius norm", "squared change per pixel", "class kept, per cent"],
        rows=rows,
        settings=_settings(recipe, context),
        figures=figures,
        notes=[
            "Orbits go as far to both sides as the median of the paths that are inferred from the "
            "closest anchor. The class is that which a classifier sees, trained apart on real "
            "images."
        ],
    )


@experiment("connor-rotated-mnist")
def rotated_mnist(context: Context) -> Result:
    """The operator learned from turned digits turns digits (figures 5 and 10)."""
    run = _train(context, context.data or "rotated-mnist")
    recipe = run.recipe
    test = recipe.splits.test.take(slice(TURNED))
    upright = test.extras["upright"]
    images, _ = orbits(recipe, upright, 0, _quarter_turn(recipe, upright))
    middle = ORBIT_STEPS // 2
    angles = _angles(images)
    classifier = _classifier(context, recipe)
    c = torch.linspace(-1, 1, ORBIT_STEPS).expand_as(angles)
    median = angles.median(0).values
    assert test.y is not None
    rows: list[list[Any]] = [
        [
            "angle of the decoded image against the coefficient, rank correlation",
            abs(rank_correlation(c.flatten(), angles.flatten())),
        ],
        ["the same of the median angle of all images", abs(rank_correlation(c[0], median))],
        ["median angle between the ends, degrees", (median[-1] - median[0]).abs().item()],
        ["class kept over half a turn, per cent", _kept(classifier, images, test.y)],
        [
            "the same of the test images themselves, turned as far",
            _kept(classifier, _turned(upright), test.y),
        ],
        [
            "the same of their reconstructions",
            _kept(classifier, _turned(images[:, middle]), test.y),
        ],
    ]
    strips = {str(i): images[i] for i in range(SHOWN)}
    figures = [
        save(image_rows(strips), context.out / "connor-rotated-mnist-orbits.png"),
        _posterior_draws(context, recipe, test.x[:SHOWN], "connor-rotated-mnist-draws"),
    ]
    return Result(
        title="The operator learned on turned digits",
        columns=["what", "value"],
        rows=rows,
        settings=_settings(recipe, context),
        figures=figures,
        notes=[
            "Orbits go a quarter turn of the image to both sides, as the angles near the middle "
            "foretell it. Angles are of the most similar turn of the reconstruction; the class is "
            "that which a classifier sees, trained apart on real images turned at random."
        ],
    )


def orbits(recipe: Recipe, x: Tensor, operator: int, reach: float) -> tuple[Tensor, float]:
    """Decode codes moved along one operator, to both sides.

    Args:
        recipe: A trained recipe.
        x: Images, of shape `batch channels height width`.
        operator: Which operator.
        reach: The largest coefficient.

    Returns:
        The images, of shape `batch steps channels height width` with the reconstructions in the
        middle, and the mean squared change of a pixel from the middle to the ends.
    """
    model = recipe.model
    psi = model.operators.psi.detach()[operator : operator + 1]
    c = reach * torch.linspace(-1, 1, ORBIT_STEPS, device=x.device)
    with torch.no_grad():
        start = model.encoder(x) / model.operators.scale
        moved = transport(psi, c[None, :, None], start[:, None])
        images = model.likelihood(model.decoder(model.operators.scale * moved)).mean
    middle = images[:, ORBIT_STEPS // 2, None]
    change = (images[:, [0, -1]] - middle).square().mean().item()
    return images, change


def _usual_reach(recipe: Recipe) -> list[float]:
    """How far the median path goes along each operator, from the closest anchor to an image."""
    model, test = recipe.model, recipe.splits.test.take(slice(TURNED))
    with torch.no_grad():
        codes = model.encoder(test.x) / model.operators.scale
        starts = model.starts(test.y)
        ends = codes[:, None].expand_as(starts)
        c, objective = model.operators.infer(starts, ends, model.inference_weight)
    closest = c[torch.arange(len(c)), objective.argmin(1)]
    return closest.abs().median(0).values.tolist()


def _quarter_turn(recipe: Recipe, x: Tensor) -> float:
    """The coefficient that turns images by 90 degrees if they go on as they begin to turn."""
    psi = recipe.model.operators.psi.detach()[0]
    speed = torch.linalg.eigvals(psi).imag.abs().max()
    norm = torch.linalg.matrix_norm(psi, 2)
    # A quarter turn of the fastest rotation, or a norm of three where nothing rotates.
    reach = float(torch.minimum(torch.pi / 2 / speed, 3 / norm).clamp_max(1e6))
    median = _angles(orbits(recipe, x, 0, reach / 2)[0]).median(0).values
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


def _train(context: Context, data: str, **settings: Any) -> Run:
    if f"vaells-{data}" not in zoo.recipes():
        raise UserError(f"VAELLS has no recipe for --data {data}; one of {', '.join(SHAPES)}.")
    options: dict[str, Any] = {}
    limit = None
    if context.budget == "quick":
        limit, options = QUICK["limit_train"], {"steps": QUICK["steps"]}
        settings |= {"warm_up": QUICK["warm_up"], "validation": 0}
    recipe = zoo.recipe(
        f"vaells-{data}",
        seed=context.seed,
        data_dir=context.data_dir,
        limit_train=limit,
        **settings,
    )
    parts = [f"{k[4]}{v}" for k, v in settings.items() if k.startswith("num_")]
    run = context.train(recipe, "-".join(["vaells", data, *parts]), **options)
    # What is drawn to measure a run does not depend on whether it was trained just now.
    torch.manual_seed(context.seed)
    return run


def _one_of_each(recipe: Recipe) -> tuple[Tensor, Tensor]:
    test = recipe.splits.test
    assert test.y is not None
    rows = torch.stack([(test.y == label).nonzero()[0, 0] for label in test.y.unique()])
    return test.x[rows], test.y[rows]


def _classifier(context: Context, recipe: Recipe) -> Classifier:
    """A classifier that is trained apart, on images turned as those of the orbits are."""
    train = recipe.splits.train.take(slice(CLASSIFIED))
    assert train.y is not None
    x = train.x
    if recipe.settings.own_anchors:
        angle = torch.pi * (torch.rand(len(x), device=x.device) - 0.5)
        x = rotate(train.extras["upright"], angle)
    return train_classifier(
        Examples(x, train.y), recipe.splits.num_classes, steps=CLASSIFIER_STEPS, seed=context.seed
    )


def _kept(classifier: Classifier, images: Tensor, y: Tensor) -> float:
    """How many images of orbits are of their digit's class, in per cent."""
    classes = features_and_classes(classifier, images.flatten(0, 1))[1]
    return 100 * classes.eq(y.repeat_interleave(images.shape[1])).double().mean().item()


def _posterior_draws(context: Context, recipe: Recipe, x: Tensor, name: str) -> Path:
    """Draws around each image, with coefficients of unit spread in norm."""
    model = recipe.model
    torch.manual_seed(context.seed)
    with torch.no_grad():
        start = model.encoder(x) / model.operators.scale
        psi = model.operators.psi
        norms = torch.linalg.matrix_norm(psi, 2).clamp_min(1e-12)
        c = torch.distributions.Laplace(0.0, 0.5).sample((len(x), SHOWN, len(psi))) / norms
        moved = transport(psi, c.clamp(-3 / norms, 3 / norms), start[:, None])
        draws = model.likelihood(model.decoder(model.operators.scale * moved)).mean
    rows = {str(i): torch.cat([x[i : i + 1], draws[i]]) for i in range(len(x))}
    return save(image_rows(rows), context.out / f"{name}.png")


def _settings(recipe: Recipe, context: Context) -> dict[str, Any]:
    return {
        **asdict(recipe.settings),
        "training_images": len(recipe.splits.train),
        "provenance": recipe.splits.provenance,
        "budget": QUICK if context.budget == "quick" else "paper",
    }
