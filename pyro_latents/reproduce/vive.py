"""Table 1 and the gap of the bound, for Vivé's thesis."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_latents.evaluation.annealed import annealed_evidence, evidence_interval
from pyro_latents.evaluation.bound import bound_by_point
from pyro_latents.evaluation.codes import codes
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.evaluation.paired import mean_and_standard_error
from pyro_latents.guides.refined import unrefined
from pyro_latents.reproduce.experiment import Budget, Context, Job, Result, experiment, labels
from pyro_latents.stories.pose_tvae.metrics import SVMScores, svm_scores
from pyro_latents.stories.pose_tvae.recipes import RECIPES
from pyro_latents.stories.story import Parts, by_muon

# Of figure 5's axis, dim(z) + dim(u), read off by eye.
_ONCE = {"dimensions": (10, 15, 20, 25, 30, 40, 50), "trials": 1, "annealed": 50}
_FULL = {**_ONCE, "seeds": 3, "annealed": 200}
BUDGETS = (
    # A sixth of MNIST and 30 passes over it, under a minute a model.
    Budget(name="quick", images=10_000, steps=1_500, test_images=200, own=_ONCE),
    # What is quicker to the thesis' accuracies, by those of validation images.
    Budget(
        name="hours",
        numbers=by_muon(4e-3, epochs=20, batch_size=200),
        test_images=1_000,
        own=_FULL,
    ),
    Budget(name="paper", test_images=1_000, own={**_FULL, "trials": 3}),
)
FOLDS = 9
# Whose bounds are compared with the evidence: the pose has a prior, and so a density.
FITTED = {"pose_prior": "fitted"}
OF_GAP: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("VAE", "", {}),
    *((kind, ", fitted", FITTED) for kind in ("Affine-TVAE", "TPS-TVAE", "Affine-DTVAE")),
    ("Affine-TVAE", ", fitted, flow", {**FITTED, "guide": "flow"}),
)
# Of the gap of the bound: draws of each image's, and the chains from the guide to its posterior.
DRAWS = 100
CHAINS: dict[str, Any] = {"num_chains": 8, "num_temperatures": 100}
# Recipe of each kind of model, and its numbers. The VAE has the training of the others.
_SHARED = {
    name: getattr(RECIPES["pose-tvae-mnist"], name)
    for name in ("epochs", "batch_size", "validation", "halve_every")
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "VAE": ("vae-mnist", {"networks": "dense", **_SHARED}),
    "Affine-TVAE": ("pose-tvae-mnist", {"warp": "affine6"}),
    "TPS-TVAE": ("pose-tvae-mnist", {"warp": "tps"}),
    "Affine-DTVAE": ("pose-dtvae-mnist", {"warp": "affine6"}),
}
# In the order of how long a row of table 1 takes.
RAW = "raw pixels"
COSTS = ["PCA", "VAE", RAW, "Affine-TVAE", "TPS-TVAE", "Affine-DTVAE"]
TABLE1 = [
    # kind, size; mean and standard deviation over nine folds, test accuracy: the thesis' table 1
    (RAW, 0, 91.19, 0.74, 91.80),
    ("PCA", 8, 75.09, 1.32, 75.51),
    ("VAE", 8, 87.70, 0.93, 87.99),
    ("Affine-TVAE", 8, 89.30, 0.68, 88.39),
    ("TPS-TVAE", 8, 88.42, 0.58, 88.65),
    ("Affine-DTVAE", 8, 93.56, 0.64, 93.87),
    ("PCA", 20, 85.62, 1.20, 86.52),
    ("VAE", 20, 85.77, 1.22, 86.45),
    ("Affine-TVAE", 20, 90.80, 0.66, 90.51),
    ("TPS-TVAE", 20, 94.65, 0.46, 94.48),
    ("Affine-DTVAE", 20, 93.56, 0.61, 94.17),
]


def job_of(
    context: Context,
    kind: str,
    z_dim: int,
    *,
    suffix: str = "",
    guide: str = "paper",
    **numbers: Any,
) -> Job:
    """Return the training of a model of table 1, one of `KINDS`; the suffix is of its label."""
    recipe, own = KINDS[kind]
    data = {"data": context.data} if context.data else {}
    values = [guide] if guide != "paper" else []
    values += [f"seed{context.seed}"] if context.seed else []
    given = {**data, **numbers}.items()
    values += [name if value is True else str(value) for name, value in given]
    return context.job(
        recipe,
        " ".join([kind, str(z_dim), *values]),
        numbers={**own, **context.budget.numbers, "z_dim": z_dim, **data, **numbers},
        label=f"{kind} ({z_dim}){suffix}",
        cost=COSTS.index(kind),
        guide=guide,
    )


def settings_of(context: Context, **own: Any) -> dict[str, Any]:
    """Return what a result says of the training of its models, which is the same for all."""
    names = ("data", "batch_size", "learning_rate", "hidden_dim", "border")
    return {**job_of(context, "Affine-TVAE", 20).settings(*names), **own}


@experiment("vive-table1", BUDGETS)
def table1(context: Context) -> Result:
    """Linear SVMs on raw pixels, principal components and latent codes (table 1)."""
    found = context.apply(_table1_row, [_table1_job(context, kind, n) for kind, n, *_ in TABLE1])
    on_mnist = context.data in (None, "mnist")
    rows = []
    for (kind, size, *thesis), (scores, seconds) in zip(TABLE1, found, strict=True):
        ours = [scores.fold_mean, scores.fold_sd, scores.test, round(seconds)]
        label = f"{kind} ({size})" if size else kind
        rows.append([label, *(thesis if on_mnist else [None] * 3), *ours])
    return Result(
        title="Accuracy (%) of linear SVMs on codes, 9-fold on the training set and on test data",
        columns=["input", *(f"thesis {c}" for c in ("mean", "sd", "test")), "mean", "sd", "test"]
        + ["seconds"],
        rows=rows,
        settings=settings_of(context),
        notes=[
            "Codes are the means of q(z | x), standardised; pixels are as they are. One run each."
        ],
    )


@experiment("vive-bound-gap", BUDGETS)
def bound_gap(context: Context) -> Result:
    """KL of the guide from the posterior, by annealing, beside its KL from the prior."""
    jobs = [
        job_of(context, kind, 20, suffix=suffix, **numbers) for kind, suffix, numbers in OF_GAP
    ]
    found = context.apply(_gap, jobs)
    rows = []
    for job, gap in zip(jobs, found, strict=True):
        cells = [cell for values in gap for cell in mean_and_standard_error(values)]
        rows.append([job.label, *cells])
    columns = ("elbo", "log p(x)", "KL(q||posterior)", "KL(q||prior)", "less", "interval")
    return Result(
        title="The gap of the bound (nats per image): KL(q || posterior) beside KL(q || prior)",
        columns=["model", *(name for column in columns for name in (column, "error"))],
        rows=rows,
        settings=settings_of(
            context, annealed_images=context.budget.own["annealed"], draws=DRAWS, **CHAINS
        ),
        notes=[
            "log p(x) of the first test images is by annealing from the guide, a lower bound in "
            "expectation: what it is above the bound, KL(q||posterior), is low, and `less`, the "
            "second divergence less the first of the same images, high. `interval` is from the "
            "lower to the upper bound of annealing on as many images that are simulated from the "
            "model, whose pixels are 0 or 1. `fitted` is the normal prior of the pose. Errors are "
            "over images of one training. The thesis, section VI, has both divergences roughly "
            "equal, by Monte Carlo, without figures."
        ],
    )


class Gap(NamedTuple):
    """What the bound of images leaves open, in nats, each of shape `images`."""

    elbo: Tensor
    log_evidence: Tensor
    to_posterior: Tensor
    to_prior: Tensor
    less: Tensor
    interval: Tensor


def _gap(job: Job) -> Gap:
    """Train, and anneal the first test images and as many that the model makes."""
    parts, seed = job.train().parts, job.context.seed
    batches = parts.batches("test", limit=job.context.budget.own["annealed"])
    pair, x = (parts.model, parts.guide), batches.examples.x
    divergences = [
        values
        for name, values in bound_by_point(*pair, batches, seed=seed).items()
        if name.startswith("kl_")
    ]
    torch.manual_seed(seed)
    elbo = log_evidence(*pair, x, num_particles=DRAWS).elbo
    annealed = annealed_evidence(*pair, x, **CHAINS).log_evidence
    lower, upper = evidence_interval(*pair, x, **CHAINS)
    gap, to_prior = annealed - elbo, torch.stack(divergences).sum(0)
    return Gap(elbo, annealed, gap, to_prior, to_prior - gap, upper - lower)


def decoded(parts: Parts, z: Tensor) -> Tensor:
    """Return the images of codes, in the reference pose where there is one."""
    if hasattr(parts.model, "reference"):
        return parts.model.reference(z)
    return torch.sigmoid(parts.model.decoder(z))


def _table1_job(context: Context, kind: str, size: int) -> Job:
    """A model, or a stand-in that has the data alone."""
    if kind in KINDS:
        return job_of(context, kind, size)
    return replace(job_of(context, "Affine-TVAE", size or 8), label=kind, cost=COSTS.index(kind))


def _table1_row(job: Job) -> tuple[SVMScores, float]:
    began = time.perf_counter()
    is_model = job.label not in ("PCA", RAW)
    parts = job.train().parts if is_model else job.build()
    train, test = parts.splits.train, parts.splits.test
    if is_model:
        features = [codes(unrefined(parts.guide), part.x) for part in (train, test)]
    else:
        features = [part.x.flatten(1) for part in (train, test)]
    if job.label == "PCA":
        features = _principal(features, job.numbers["z_dim"])
    (x, x_test), (y, y_test) = features, map(labels, (train, test))
    scores = svm_scores(x, y, x_test, y_test, folds=FOLDS, standardise=job.label != RAW)
    return scores, time.perf_counter() - began


def _principal(features: list[Tensor], size: int) -> list[Tensor]:
    """Principal components, those of the first features."""
    from sklearn.decomposition import PCA

    pca = PCA(size, svd_solver="covariance_eigh").fit(features[0].numpy())
    return [torch.from_numpy(pca.transform(part.numpy())) for part in features]
