"""Figures 5 to 11 of Vivé's thesis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.data.batches import Plain
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.files import write_atomically
from pyro_latents.guides.pose_tvae import centre
from pyro_latents.parameters import local_parameters
from pyro_latents.recipes.pose_tvae import ROWS, codes
from pyro_latents.recipes.recipe import Recipe
from pyro_latents.reproduce.experiment import Context, Result, experiment
from pyro_latents.reproduce.vive_models import KINDS, Spec, settings_of, spec_of, train_all

GRID = 8  # images a side of a panel
GAP = 6  # pixels between two grids of a panel
DIMENSIONS = (10, 15, 20, 25, 30, 40, 50)  # of figure 5's axis, read off by eye
QUICK_DIMENSIONS = (10, 20, 30)
POSE_SIZES = {"VAE": 0, "Affine-TVAE": 6, "TPS-TVAE": 18, "Affine-DTVAE": 6}

Panel = tuple[str, Tensor]


@experiment("vive-figure5")
def figure5(context: Context) -> Result:
    """Reconstruction error against the number of latent variables, dim(z) + dim(u) (figure 5)."""
    sizes = QUICK_DIMENSIONS if context.budget == "quick" else DIMENSIONS
    specs = {
        (kind, size): spec_of(kind, size - POSE_SIZES[kind])
        for size in reversed(sizes)
        for kind in KINDS
        if size > POSE_SIZES[kind]
    }
    trained = train_all(context, list(specs.values()))
    rows: list[list[Any]] = []
    for (kind, size), spec in sorted(specs.items()):
        recipe = trained[spec.label]
        test = Plain(recipe.splits.test)
        terms = bound_terms(recipe.model, recipe.guide, test, seed=context.seed)
        rows.append([kind, size, size - POSE_SIZES[kind], -terms["reconstruction"], terms["elbo"]])
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for kind in KINDS:
        axes.plot(
            *zip(*[(r[1], r[3]) for r in rows if r[0] == kind], strict=True), "o-", label=kind
        )
    axes.set(xlabel="dim(z) + dim(u)", ylabel="reconstruction error (nats per test image)")
    axes.legend()
    return Result(
        title="Reconstruction error of test images (nats) against the number of latent variables",
        columns=["model", "dim(z) + dim(u)", "dim(z)", "reconstruction error", "elbo"],
        rows=rows,
        settings=settings_of(context),
        figures=[_save(figure, context, "vive-figure5")],
        notes=["The pose is a point mass without a prior: the bound has no term for it."],
    )


@experiment("vive-figure6")
def figure6(context: Context) -> Result:
    """Samples of the VAE, T-VAE and DTVAE in the reference pose (figures 6 and 7)."""
    specs = [
        spec_of(kind, size - POSE_SIZES[kind])
        for size in (10, 20)
        for kind in ("VAE", "Affine-TVAE", "Affine-DTVAE")
    ]
    return _samples(context, "vive-figure6", "Samples by model and total dimension", specs, 3)


@experiment("vive-figure8")
def figure8(context: Context) -> Result:
    """Test digits in a two-dimensional latent space (figure 8)."""
    specs = [spec_of(kind, 2) for kind in KINDS]
    figure = Figure(figsize=(8, 8), layout="constrained")
    rows = []
    panels = figure.subplots(2, 2).flat
    for axes, (label, recipe) in zip(panels, train_all(context, specs).items(), strict=True):
        test = recipe.splits.test
        assert test.y is not None
        z = codes(recipe.guide, test.x)
        points = axes.scatter(*z.T.numpy(), c=test.y.numpy(), s=2, cmap="tab10")
        axes.set(title=label, xlabel="z1", ylabel="z2", aspect="equal")
        terms = bound_terms(recipe.model, recipe.guide, Plain(test), seed=context.seed)
        rows.append(
            [label, -terms["reconstruction"], terms["kl_z"], _neighbour_accuracy(z, test.y)]
        )
    figure.colorbar(points, ax=figure.axes, shrink=0.5, label="digit")
    return Result(
        title="Test digits in two latent dimensions",
        columns=["model", "reconstruction error", "kl_z", "5-nearest neighbours (%)"],
        rows=rows,
        settings=settings_of(context),
        figures=[_save(figure, context, "vive-figure8")],
    )


@experiment("vive-figure9")
def figure9(context: Context) -> Result:
    """Samples with affine and with spline transformers, 30 latent variables (figure 9)."""
    specs = [spec_of(kind, 30 - POSE_SIZES[kind]) for kind in ("Affine-TVAE", "TPS-TVAE")]
    return _samples(context, "vive-figure9", "Samples with affine and spline warps", specs, 2)


@experiment("vive-figure10")
def figure10(context: Context) -> Result:
    """Priors of the pose: samples in the reference pose and in a drawn one (figure 10)."""
    specs = [
        _with_prior("Affine-TVAE", "identity"),
        _with_prior("Affine-TVAE", "fitted"),
        _with_prior("Affine-TVAE", "affine5"),
        _with_prior("TPS-TVAE", "fitted"),
    ]
    return _priors(context, "vive-figure10", "Priors of the pose", specs)


@experiment("vive-figure11")
def figure11(context: Context) -> Result:
    """Full normal priors of the pose, of full and of low rank (figure 11)."""
    specs = [
        _with_prior(kind, f"full-{rank}")
        for kind, ranks in (("Affine-TVAE", (6, 3)), ("TPS-TVAE", (18, 4)))
        for rank in ranks
    ]
    return _priors(context, "vive-figure11", "Full normal priors of the pose", specs)


def mean_pose(recipe: Recipe) -> Tensor:
    """Return the average pose inferred from the training images, of shape `u_dim`."""
    with torch.no_grad():
        parts = [recipe.guide.posterior(x)["u"] for x in recipe.splits.train.x.split(ROWS)]
        return torch.cat([centre(part) for part in parts]).mean(0)


def _samples(context: Context, name: str, title: str, specs: list[Spec], columns: int) -> Result:
    """Draws of z in the reference pose and in the average one, as text and captions differ."""
    panels: list[Panel] = []
    rows = []
    for label, recipe in train_all(context, specs).items():
        z = _draws(context, recipe)
        model = recipe.model
        with torch.no_grad():
            if not hasattr(model, "reference"):
                panels.append((label, torch.sigmoid(model.decoder(z))))
                rows.append([label, None])
                continue
            u = mean_pose(recipe)
            panels.append((f"{label}\nidentity pose | average pose", _beside(model, z, u)))
        rows.append([label, model.warp.angle(model.prior.pose(u)).rad2deg().item()])
    figure = _figure(panels, columns)
    return Result(
        title=title,
        columns=["model", "angle of the average pose (degrees)"],
        rows=rows,
        settings=settings_of(context),
        figures=[_save(figure, context, name)],
        notes=["Left halves: the pose is the identity. Right halves: its average in training."],
    )


def _priors(context: Context, name: str, title: str, specs: list[Spec]) -> Result:
    panels: list[Panel] = []
    rows = []
    for label, recipe in train_all(context, specs).items():
        model, z = recipe.model, _draws(context, recipe)
        with torch.no_grad(), local_parameters(model):
            u = model.prior().expand([len(z)]).sample()
            panels.append((f"{label}\nreference | drawn pose", _beside(model, z, u)))
            angles = model.warp.angle(model.prior.pose(u)).rad2deg()
        terms = bound_terms(model, recipe.guide, Plain(recipe.splits.test), seed=context.seed)
        rows.append([label, *(terms[key] for key in _TERMS), angles.mean().item(), _sd(angles)])
    return Result(
        title=f"{title}: test bound (nats) and the angle of drawn poses (degrees)",
        columns=["model", *_TERMS, "mean angle", "sd of angle"],
        rows=rows,
        settings=settings_of(context),
        figures=[_save(_figure(panels, 2), context, name)],
    )


_TERMS = ("elbo", "reconstruction", "kl_z", "kl_u")


def _with_prior(kind: str, prior: str) -> Spec:
    story, settings = KINDS[kind]
    settings = {**settings, "z_dim": 20, "pose_prior": prior}
    return Spec(f"{kind} (20), {prior}", story, settings)


def _sd(values: Tensor) -> float:
    return values.std().item()


def _draws(context: Context, recipe: Recipe) -> Tensor:
    generator = torch.Generator().manual_seed(context.seed)
    return torch.randn(GRID * GRID, recipe.model.z_dim, generator=generator)


def _beside(model: Any, z: Tensor, u: Tensor) -> Tensor:
    """Two grids of the same codes: the reference pose, and the pose `u`."""
    posed = model.probabilities(z, u.expand(len(z), -1))
    left, right = _tiled(model.reference(z)), _tiled(posed)
    gap = torch.ones(*left.shape[:-1], GAP)
    return torch.cat([left, gap, right], dim=-1)


def _tiled(images: Tensor) -> Tensor:
    """Lay `GRID * GRID` images out in a square, `channels height width`."""
    square = images.unflatten(0, (GRID, GRID))
    return square.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)


def _figure(panels: Sequence[Panel], columns: int) -> Figure:
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * rows), layout="constrained")
    grid: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, (title, images) in zip(grid, panels, strict=False):
        picture = images if images.dim() == 3 else _tiled(images)
        axes.imshow(picture.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title)
    return figure


def _save(figure: Figure, context: Context, name: str) -> Path:
    path = context.out / f"{name}.png"
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
    return path


def _neighbour_accuracy(z: Tensor, labels: Tensor) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    scores = cross_val_score(KNeighborsClassifier(5), z.numpy(), labels.numpy(), cv=5)
    return 100 * float(scores.mean())
