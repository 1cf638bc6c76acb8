"""Table 1, the gap of the bound, and rotated MNIST, for Vivé's thesis."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples, Splits
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.equivariance import equivariance
from pyro_latents.evaluation.evidence import log_evidence_of_batches
from pyro_latents.evaluation.linear_svm import SVMScores, svm_scores
from pyro_latents.guides.pose_tvae import centre
from pyro_latents.recipes.pose_tvae import codes
from pyro_latents.recipes.recipe import Recipe, Run
from pyro_latents.reproduce.experiment import Context, Result, experiment
from pyro_latents.reproduce.parallel import in_processes
from pyro_latents.reproduce.vive_models import (
    KINDS,
    build,
    settings_of,
    spec_of,
    train_all,
    train_one,
)

FOLDS = 9
BOUND_PARTICLES = 1000
# Of the measurements that take many draws or turns of each image.
TEST_IMAGES, QUICK_TEST_IMAGES = 1000, 200
TURNS = {"warp": "affine5", "num_turns": 8}


TABLE1 = [
    # label, mean and standard deviation over nine folds, test accuracy: the thesis' table 1
    ("Raw MNIST", 91.19, 0.74, 91.80),
    ("PCA (8)", 75.09, 1.32, 75.51),
    ("VAE (8)", 87.70, 0.93, 87.99),
    ("Affine-TVAE (8)", 89.30, 0.68, 88.39),
    ("TPS-TVAE (8)", 88.42, 0.58, 88.65),
    ("Affine-DTVAE (8)", 93.56, 0.64, 93.87),
    ("PCA (20)", 85.62, 1.20, 86.52),
    ("VAE (20)", 85.77, 1.22, 86.45),
    ("Affine-TVAE (20)", 90.80, 0.66, 90.51),
    ("TPS-TVAE (20)", 94.65, 0.46, 94.48),
    ("Affine-DTVAE (20)", 93.56, 0.61, 94.17),
]


@experiment("vive-table1")
def table1(context: Context) -> Result:
    """Linear SVMs on raw pixels, principal components and latent codes (table 1)."""
    jobs = [(context, label) for label, *_ in TABLE1]
    # The longest first, so that no core waits for a late one.
    order = sorted(range(len(jobs)), key=lambda i: _cost(jobs[i][1]), reverse=True)
    done = in_processes(_table1_row, [jobs[i] for i in order], description="rows")
    found = {order[n]: row for n, row in enumerate(done)}
    on_mnist = context.data in (None, "mnist")
    rows = [
        [label, *(thesis if on_mnist else [None] * 3), *_cells(*found[i])]
        for i, (label, *thesis) in enumerate(TABLE1)
    ]
    return Result(
        title="Accuracy (%) of linear SVMs on codes, 9-fold on the training set and on test data",
        columns=[
            "input",
            "thesis mean",
            "thesis sd",
            "thesis test",
            "mean",
            "sd",
            "test",
            "seconds",
        ],
        rows=rows,
        settings=settings_of(context),
        notes=[
            "Codes are the means of q(z | x), standardised; pixels are as they are. One run each."
        ],
    )


@experiment("vive-bound-gap")
def bound_gap(context: Context) -> Result:
    """KL of the guide from the posterior, by importance sampling, beside its KL from the prior."""
    prior = {"pose_prior": "fitted"}
    specs = [
        spec_of("VAE", 20),
        spec_of("Affine-TVAE", 20, **prior),
        spec_of("TPS-TVAE", 20, **prior),
        spec_of("Affine-DTVAE", 20, **prior),
        replace(spec_of("Affine-TVAE", 20, **prior), label="Affine-TVAE (20), flow", guide="flow"),
    ]
    images = QUICK_TEST_IMAGES if context.budget == "quick" else TEST_IMAGES
    rows = []
    for label, recipe in train_all(context, specs).items():
        batches = Plain(recipe.splits.test.take(slice(images)))
        terms = bound_terms(recipe.model, recipe.guide, batches, seed=context.seed)
        evidence = log_evidence_of_batches(
            recipe.model,
            recipe.guide,
            batches,
            num_particles=BOUND_PARTICLES,
            seed=context.seed,
        )
        likelihood = evidence.log_evidence.mean().item()
        to_prior = sum(value for name, value in terms.items() if name.startswith("kl_"))
        bad = 100 * (evidence.k_hat > 0.7).double().mean().item()
        rows.append([label, terms["elbo"], likelihood, likelihood - terms["elbo"], to_prior, bad])
    return Result(
        title="The gap of the bound (nats per image): KL(q || posterior) beside KL(q || prior)",
        columns=["model", "elbo", "log p(x)", "KL(q||posterior)", "KL(q||prior)", "k-hat>0.7 (%)"],
        rows=rows,
        settings={
            **settings_of(context),
            "test_images": images,
            "particles": BOUND_PARTICLES,
        },
        notes=["The thesis, section VI: the two divergences are roughly equal. No figures there."],
    )


@experiment("vive-rotated")
def rotated(context: Context) -> Result:
    """Whether the inferred pose turns with the digit, and the reference image does not."""
    data = (context.data or "mnist").removeprefix("rotated-")
    context = replace(context, data=f"rotated-{data}")
    specs = [
        spec_of(kind, 20, data=context.data) for kind in ("VAE", "Affine-TVAE", "Affine-DTVAE")
    ]
    specs += [
        replace(spec_of(kind, 20, data=context.data, **TURNS), label=f"{kind} (20), turns")
        for kind in ("Affine-TVAE", "Affine-DTVAE")
    ]
    images = QUICK_TEST_IMAGES if context.budget == "quick" else TEST_IMAGES
    rows = []
    for label, recipe in train_all(context, specs).items():
        test = recipe.splits.test.take(slice(images))
        found = equivariance(
            test.extras.get("upright", test.x),
            lambda x, recipe=recipe: pose_angle(recipe, x),
            lambda x, recipe=recipe: reference(recipe, x),
        )
        posed = label != "VAE (20)"
        rows.append(
            [
                label,
                found.within if posed else None,
                found.pooled if posed else None,
                found.input_change,
                found.reference_change,
                found.reference_change / found.input_change,
            ]
        )
    return Result(
        title="Rotated test digits: circular correlation of pose and angle, and what changes",
        columns=["model", "within a digit", "pooled", "input mse", "reference mse", "ratio"],
        rows=rows,
        settings={**settings_of(context), "test_images": images, "angles": 36},
        notes=[
            "Each test digit is turned by 0, 10, ..., 350 degrees. Mean squared changes are from "
            "the upright digit and from its reference image; of the VAE, which has no pose, the "
            "reconstruction is the reference image.",
            "Without `turns` the pose is all six numbers of the matrix, as in the thesis; with it "
            "five, the angle among them, chosen from eight turns for each image: else half-turned "
            "digits are local optima.",
        ],
    )


def pose_angle(recipe: Recipe, x: Tensor) -> Tensor:
    """Return the angle of the inferred pose in radians, zero for a model without a pose."""
    posterior = recipe.guide.posterior(x)
    if "u" not in posterior:
        return torch.zeros(len(x))
    return recipe.model.warp.angle(recipe.model.prior.pose(centre(posterior["u"])))


def reference(recipe: Recipe, x: Tensor) -> Tensor:
    """Return the inferred image in its reference pose; of a VAE the reconstruction."""
    z = centre(recipe.guide.posterior(x)["z"])
    if hasattr(recipe.model, "reference"):
        return recipe.model.reference(z)
    return torch.sigmoid(recipe.model.decoder(z))


def _table1_row(job: tuple[Context, str]) -> tuple[SVMScores, float]:
    context, label = job
    began = time.perf_counter()
    kind, _, size = label.removesuffix(")").partition(" (")
    if kind in KINDS:
        spec = spec_of(kind, int(size))
        recipe = Run(train_one((context, spec))).recipe
        features = [codes(recipe.guide, part.x) for part in _parts(recipe.splits)]
    else:
        recipe = build(spec_of("Affine-TVAE", 8), context)
        features = [part.x.flatten(1) for part in _parts(recipe.splits)]
        features = _principal(*features, int(size)) if kind == "PCA" else features
    train, test = _parts(recipe.splits)
    assert train.y is not None
    assert test.y is not None
    scores = svm_scores(
        features[0], train.y, features[1], test.y, folds=FOLDS, standardise=kind != "Raw MNIST"
    )
    return scores, time.perf_counter() - began


def _parts(splits: Splits) -> tuple[Examples, Examples]:
    return splits.train, splits.test


def _principal(train: Tensor, test: Tensor, size: int) -> list[Tensor]:
    from sklearn.decomposition import PCA

    pca = PCA(size, svd_solver="covariance_eigh").fit(train.numpy())
    return [torch.from_numpy(pca.transform(part.numpy())) for part in (train, test)]


def _cells(scores: SVMScores, seconds: float) -> list[float]:
    return [scores.fold_mean, scores.fold_sd, scores.test, round(seconds)]


def _cost(label: str) -> int:
    """How long a row takes, in rough ranks."""
    order = ["PCA", "VAE", "Raw", "Affine-TVAE", "TPS-TVAE", "Affine-DTVAE"]
    return next(i for i, name in enumerate(order) if label.startswith(name))
