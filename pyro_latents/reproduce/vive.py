"""Table 1, the gap of the bound, and rotated MNIST, for Vivé's thesis."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.codes import codes
from pyro_latents.evaluation.evidence import log_evidence_of_batches
from pyro_latents.guides.refined import unrefined
from pyro_latents.programs import centre
from pyro_latents.reproduce.experiment import Budget, Context, Job, Result, experiment, labels
from pyro_latents.stories.pose_tvae.metrics import SVMScores, equivariance, svm_scores
from pyro_latents.stories.pose_tvae.recipes import RECIPES
from pyro_latents.stories.story import Parts

# Of figure 5's axis, dim(z) + dim(u), read off by eye.
_ONCE = {"dimensions": (10, 15, 20, 25, 30, 40, 50), "trials": 1}
BUDGETS = (
    # A sixth of MNIST and 30 passes over it, under a minute a model.
    Budget(name="quick", images=10_000, steps=1_500, test_images=200, own=_ONCE),
    Budget(name="hours", test_images=1_000, own=_ONCE),
    Budget(name="paper", test_images=1_000, own={**_ONCE, "trials": 3}),
)
FOLDS = 9
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
TURNS: dict[str, Any] = {"warp": "affine5", "num_turns": 8}
POLAR: dict[str, Any] = {"warp": "affine5", "localiser": "polar"}
UPRIGHT = ("mnist", "digits")
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
        numbers={**own, "z_dim": z_dim, **data, **numbers},
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
    """KL of the guide from the posterior, by importance sampling, beside its KL from the prior."""
    fitted = partial(job_of, context, pose_prior="fitted")
    jobs = [
        job_of(context, "VAE", 20),
        *(fitted(kind, 20) for kind in ("Affine-TVAE", "TPS-TVAE", "Affine-DTVAE")),
        fitted("Affine-TVAE", 20, suffix=", flow", guide="flow"),
    ]
    rows = []
    own = {"test_images": context.budget.test_images, "particles": context.budget.particles}
    for job, parts in zip(jobs, context.train(jobs), strict=True):
        programs = parts.model, parts.guide, parts.batches("test", limit=own["test_images"])
        terms = bound_terms(*programs, seed=context.seed)
        evidence = log_evidence_of_batches(
            *programs, num_particles=context.budget.particles, seed=context.seed
        )
        likelihood = evidence.log_evidence.mean().item()
        to_prior = sum(value for name, value in terms.items() if name.startswith("kl_"))
        bad = 100 * (evidence.k_hat > 0.7).double().mean().item()
        gap = likelihood - terms["elbo"]
        rows.append([job.label, terms["elbo"], likelihood, gap, to_prior, bad])
    return Result(
        title="The gap of the bound (nats per image): KL(q || posterior) beside KL(q || prior)",
        columns=["model", "elbo", "log p(x)", "KL(q||posterior)", "KL(q||prior)", "k-hat>0.7 (%)"],
        rows=rows,
        settings=settings_of(context, **own),
        notes=["The thesis, section VI: the two divergences are roughly equal. No figures there."],
    )


@experiment("vive-rotated", BUDGETS, takes=(*UPRIGHT, *(f"rotated-{data}" for data in UPRIGHT)))
def rotated(context: Context) -> Result:
    """Whether the inferred pose turns with the digit, and the reference image does not."""
    data = (context.data or "mnist").removeprefix("rotated-")
    context, count = replace(context, data=f"rotated-{data}"), context.budget.test_images
    posed = ("Affine-TVAE", "Affine-DTVAE")
    jobs = [job_of(context, kind, 20) for kind in ("VAE", *posed)]
    jobs += [job_of(context, kind, 20, suffix=", turns", **TURNS) for kind in posed]
    jobs.append(job_of(context, "Affine-DTVAE", 20, suffix=", polar", **POLAR))
    rows = []
    for job, parts in zip(jobs, context.train(jobs), strict=True):
        test = parts.splits.test.take(slice(count))
        following = partial(pose_angle, parts), partial(reference, parts)
        found = equivariance(test.extras["upright"], *following, test.y)
        of_class = fmean(found.by_class), min(found.by_class)
        turned: list[float | None] = [None] * 4
        if hasattr(parts.model, "warp"):
            turned = [found.within, *of_class, found.pooled]
        ratio = found.reference_change / found.input_change
        rows.append([job.label, *turned, found.input_change, found.reference_change, ratio])
    columns = ["model", "within a digit", "within a class", "worst class", "pooled"]
    return Result(
        title="Rotated test digits: circular correlation of pose and angle, and what changes",
        columns=[*columns, "input mse", "reference mse", "ratio"],
        rows=rows,
        settings=settings_of(context, test_images=count, angles=36),
        notes=[
            "Each test digit is turned by 0, 10, ..., 350 degrees. Mean squared changes are from "
            "the upright digit and from its reference image; of the VAE, which has no pose, the "
            "reconstruction is the reference image.",
            "Without `turns` or `polar` the pose is all six numbers of the matrix, as in the "
            "thesis; with them five, the angle among them. `turns` chooses from eight turns for "
            "each image, else half-turned digits are local optima; `polar` has an angle that "
            "turns along with the image, and searches nothing.",
        ],
    )


def pose_angle(parts: Parts, x: Tensor) -> Tensor:
    """Return the angle of the inferred pose in radians, zero for a model without a pose."""
    posterior = parts.guide.posterior(x)
    if "u" not in posterior:
        return x.new_zeros(len(x))
    return parts.model.warp.angle(parts.model.prior.pose(centre(posterior["u"])))


def reference(parts: Parts, x: Tensor) -> Tensor:
    """Return the inferred image in its reference pose; of a VAE the reconstruction."""
    return decoded(parts, centre(parts.guide.posterior(x)["z"]))


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
