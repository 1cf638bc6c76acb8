"""Figures 5 to 11 of Vivé's thesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.codes import codes
from pyro_latents.evaluation.knn import knn_accuracy
from pyro_latents.guides.refined import unrefined
from pyro_latents.programs import local_parameters
from pyro_latents.reproduce.experiment import (
    Context,
    Job,
    Result,
    experiment,
    labels,
    lattice,
    mean_and_error,
    tiled,
)
from pyro_latents.reproduce.vive import BUDGETS, KINDS, decoded, job_of, settings_of
from pyro_latents.stories.story import Parts

GRID = 8  # images a side of a panel
GAP = 6  # pixels between two grids of a panel
POSE_SIZES = {"VAE": 0, "Affine-TVAE": 6, "TPS-TVAE": 18, "Affine-DTVAE": 6}
DRAWS = 10_000  # of poses, whose angles and sizes are told
TERMS = ("elbo", "reconstruction", "kl_z", "kl_u")

Panel = tuple[str, Tensor]


@experiment("vive-figure5", BUDGETS)
def figure5(context: Context) -> Result:
    """Reconstruction error against the number of latent variables, dim(z) + dim(u) (figure 5)."""
    trials = context.budget.own["trials"]
    sizes = [
        (kind, size)
        for kind in sorted(KINDS)
        for size in context.budget.own["dimensions"]
        if size > POSE_SIZES[kind]
    ]
    jobs = [
        job_of(replace(context, seed=context.seed + trial), kind, size - POSE_SIZES[kind])
        for kind, size in sizes
        for trial in range(trials)
    ]
    terms = [terms_of_test(context, parts) for parts in context.train(jobs)]
    rows: list[list[Any]] = []
    for number, (kind, size) in enumerate(sizes):
        own = terms[number * trials :][:trials]
        errors, elbo = [-each["reconstruction"] for each in own], fmean(e["elbo"] for e in own)
        rows.append([kind, size, size - POSE_SIZES[kind], *mean_and_error(errors), elbo])
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    notes = ["The pose is a point mass without a prior: the bound has no term for it."]
    for kind in KINDS:
        own_rows = [row for row in rows if row[0] == kind]
        _, size, _, mean, error, *_ = zip(*own_rows, strict=True)
        axes.errorbar(size, mean, [e or 0.0 for e in error], fmt="o-", capsize=2, label=kind)
        notes.append(_optimum(own_rows))
    axes.set(xlabel="dim(z) + dim(u)", ylabel="reconstruction error (nats per test image)")
    axes.legend()
    columns = ["model", "dim(z) + dim(u)", "dim(z)", "reconstruction error", "+-", "trials"]
    return Result(
        title="Reconstruction error of test images (nats) against the number of latent variables",
        columns=[*columns, "elbo"],
        rows=rows,
        settings=settings_of(context),
        figures=[context.save(figure, "vive-figure5")],
        notes=notes,
    )


def _optimum(rows: Sequence[Sequence[Any]]) -> str:
    """Where the error of one model is least, and where it is hardly more, if that can be said."""
    best = min(rows, key=lambda row: row[3])
    least, error = best[3], best[4]
    if error is None:
        return f"{best[0]}: least at {best[1]}, of one training each."
    near = [str(r[1]) for r in rows if 0 < r[3] - least < hypot(error, r[4])]
    also = f"; within the errors of both also {', '.join(near)}" if near else ""
    return f"{best[0]}: least at {best[1]}{also}."


@experiment("vive-figure6", BUDGETS)
def figure6(context: Context) -> Result:
    """Samples of the VAE, T-VAE and DTVAE in the reference pose (figure 6)."""
    jobs = [
        job_of(context, kind, size - POSE_SIZES[kind])
        for size in (10, 20)
        for kind in ("VAE", "Affine-TVAE", "Affine-DTVAE")
    ]
    return _samples(context, "vive-figure6", "Samples by model and total dimension", jobs, 3)


@experiment("vive-figure7", BUDGETS)
def figure7(context: Context) -> Result:
    """T-VAE and DTVAE in the reference pose: a plane of codes, and samples (figure 7)."""
    kinds = ("Affine-TVAE", "Affine-DTVAE")
    jobs = [job_of(context, kind, 2) for kind in kinds]
    jobs += [job_of(context, kind, n - POSE_SIZES[kind]) for n in (10, 20) for kind in kinds]
    panels, rows = [], []
    for job, parts in zip(jobs, context.train(jobs), strict=True):
        z = _plane() if parts.model.z_dim == 2 else _draws(context, parts)
        with torch.no_grad():
            panels.append((job.label, gridded(decoded(parts, z.to(parts.splits.test.device)))))
        rows.append([job.label, -terms_of_test(context, parts)["reconstruction"]])
    return Result(
        title="Images in the reference pose, and the reconstruction error of test images (nats)",
        columns=["model", "reconstruction error"],
        rows=rows,
        settings=settings_of(context),
        figures=[context.save(panelled(panels, 2), "vive-figure7")],
        notes=["Of two numbers, codes are the normal's quantiles from 5 to 95 per cent."],
    )


@experiment("vive-figure8", BUDGETS)
def figure8(context: Context) -> Result:
    """Test digits in a two-dimensional latent space (figure 8)."""
    jobs = [job_of(context, kind, 2) for kind in KINDS]
    figure = Figure(figsize=(8, 8), layout="constrained")
    panels = figure.subplots(2, 2).flat
    rows = []
    for axes, job, parts in zip(panels, jobs, context.train(jobs), strict=True):
        test = parts.splits.test
        z, y = codes(unrefined(parts.guide), test.x).cpu(), labels(test).cpu()
        points = axes.scatter(*z.T.numpy(), c=y.numpy(), s=2, cmap="tab10")
        axes.set(title=job.label, xlabel="z1", ylabel="z2", aspect="equal")
        terms = terms_of_test(context, parts)
        train = parts.splits.train
        known = codes(unrefined(parts.guide), train.x).cpu()
        accuracy = knn_accuracy(known, labels(train), z, y)
        rows.append([job.label, -terms["reconstruction"], terms["kl_z"], accuracy])
    figure.colorbar(points, ax=figure.axes, shrink=0.5, label="digit")
    return Result(
        title="Test digits in two latent dimensions",
        columns=["model", "reconstruction error", "kl_z", "5 neighbours (%)"],
        rows=rows,
        settings=settings_of(context),
        figures=[context.save(figure, "vive-figure8")],
        notes=[
            "Beside the two numbers of the code are those of the pose, 6, or 18 of the spline. "
            "Test digits are told by their neighbours among the codes of the training digits."
        ],
    )


@experiment("vive-figure9", BUDGETS)
def figure9(context: Context) -> Result:
    """Samples with affine and with spline transformers, 30 latent variables (figure 9)."""
    jobs = [job_of(context, kind, 30 - POSE_SIZES[kind]) for kind in ("Affine-TVAE", "TPS-TVAE")]
    return _samples(context, "vive-figure9", "Samples with affine and spline warps", jobs, 2)


@experiment("vive-figure10", BUDGETS)
def figure10(context: Context) -> Result:
    """Priors of the pose: samples in the reference pose and in a drawn one (figure 10)."""
    pairs = [("Affine-TVAE", prior) for prior in ("identity", "fitted", "affine5")]
    jobs = [
        job_of(context, kind, 20, suffix=f", {prior}", pose_prior=prior)
        for kind, prior in (*pairs, ("TPS-TVAE", "fitted"))
    ]
    return _priors(context, "vive-figure10", "Priors of the pose", jobs)


@experiment("vive-figure11", BUDGETS)
def figure11(context: Context) -> Result:
    """Full normal priors of the pose, of full and of low rank (figure 11)."""
    pairs = [("Affine-TVAE", 6), ("Affine-TVAE", 3), ("TPS-TVAE", 18), ("TPS-TVAE", 4)]
    jobs = [
        job_of(context, kind, 20, suffix=f", full-{rank}", pose_prior="full", pose_rank=rank)
        for kind, rank in pairs
    ]
    return _priors(context, "vive-figure11", "Full normal priors of the pose", jobs)


def _samples(context: Context, name: str, title: str, jobs: Sequence[Job], columns: int) -> Result:
    """Draws of z in the reference pose and in the average one, as text and captions differ."""
    panels: list[Panel] = []
    rows = []
    for job, parts in zip(jobs, context.train(jobs), strict=True):
        z, model = _draws(context, parts), parts.model
        with torch.no_grad():
            if not hasattr(model, "warp"):
                panels.append((job.label, gridded(decoded(parts, z))))
                rows.append([job.label, None])
                continue
            u = codes(unrefined(parts.guide), parts.splits.train.x, site="u").mean(0)
            panels.append((f"{job.label}\nidentity pose | average pose", _beside(model, z, u)))
        rows.append([job.label, model.warp.angle(model.prior.pose(u)).rad2deg().item()])
    return Result(
        title=title,
        columns=["model", "angle of the average pose (degrees)"],
        rows=rows,
        settings=settings_of(context),
        figures=[context.save(panelled(panels, columns), name)],
        notes=["Left halves: the pose is the identity. Right halves: its average in training."],
    )


def _priors(context: Context, name: str, title: str, jobs: Sequence[Job]) -> Result:
    panels: list[Panel] = []
    rows = []
    for job, parts in zip(jobs, context.train(jobs), strict=True):
        model, z = parts.model, _draws(context, parts)
        with torch.random.fork_rng(), torch.no_grad(), local_parameters(model):
            torch.manual_seed(context.seed)
            u = model.prior().expand([DRAWS]).sample()
            panels.append((f"{job.label}\nreference | drawn pose", _beside(model, z, u[: len(z)])))
            pose = model.prior.pose(u)
            angles = model.warp.angle(pose).rad2deg()
            zooms = 1 / torch.det(model.warp.matrix(pose)[..., :2]).abs().sqrt()
        terms = terms_of_test(context, parts)
        drawn = [angles.mean().item(), angles.std().item(), zooms.median().item()]
        rows.append([job.label, *(terms[key] for key in TERMS), *drawn])
    return Result(
        title=f"{title}: test bound (nats) and the angle of drawn poses (degrees)",
        columns=["model", *TERMS, "mean angle", "sd of angle", "median zoom"],
        rows=rows,
        settings=settings_of(context, draws=DRAWS),
        figures=[context.save(panelled(panels, 2), name)],
        notes=[
            "Poses are drawn from the prior. A zoom is how much larger a digit is in the pose."
        ],
    )


def terms_of_test(context: Context, parts: Parts) -> dict[str, float]:
    """The terms of the test images' bound."""
    return bound_terms(parts.model, parts.guide, parts.batches("test"), seed=context.seed)


def _draws(context: Context, parts: Parts) -> Tensor:
    generator = torch.Generator().manual_seed(context.seed)
    z = torch.randn(GRID * GRID, parts.model.z_dim, generator=generator)
    return z.to(parts.splits.test.device)


def _plane() -> Tensor:
    """Codes of two numbers over the normal's quantiles, row by row from above: `GRID*GRID 2`."""
    side = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.05, 0.95, GRID))
    return lattice(side).flatten(0, 1)


def _beside(model: Any, z: Tensor, u: Tensor) -> Tensor:
    """Two grids of the same codes: the reference pose, and the pose `u`."""
    posed = model.probabilities(z, u.expand(len(z), -1))
    left, right = gridded(model.reference(z)), gridded(posed)
    return torch.cat([left, torch.ones_like(left[:, :GAP]), right], dim=1)


def gridded(images: Tensor) -> Tensor:
    """Lay `GRID * GRID` images out in a square."""
    return tiled(images.unflatten(0, (GRID, GRID)))


def panelled(panels: Sequence[Panel], columns: int) -> Figure:
    """Draw pictures with their titles, row by row."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, (title, picture) in zip(figure.axes, panels, strict=False):
        axes.imshow(picture.cpu().numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title)
    return figure
