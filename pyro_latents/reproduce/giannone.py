"""The models of Giannone et al. (2019), and their likelihoods."""

from __future__ import annotations

from typing import Any

from pyro_latents.data.batches import Binarised, Plain
from pyro_latents.evaluation.evidence import log_evidence_of_batches
from pyro_latents.reproduce.experiment import Budget, Cell, Context, Job, Result, experiment

FRAME = (1, 28, 28)  # of the paper's encoder
TAKES = ("mnist", "fashion-mnist", "digits")
# Labelled codes, and codes to classify: of affNIST, and of each model's own data.
_ALL = {"labelled": 60_000, "tested": 10_000}
BUDGETS = (
    # A few minutes a TVAE on one core; half an hour; appendix B, for all three models.
    Budget(
        name="quick",
        images=20_000,
        steps=1_200,
        numbers={"learning_rate": 1e-3, "halve_every": 0},
        test_images=500,
        own={"labelled": 20_000, "tested": 4_000},
    ),
    Budget(
        name="hours",
        numbers={"epochs": 8, "learning_rate": 1e-3, "halve_every": 3},
        test_images=1_000,
        own=_ALL,
    ),
    Budget(
        name="paper",
        numbers={"epochs": 200, "learning_rate": 1e-4, "halve_every": 50},
        test_images=10_000,
        own=_ALL,
    ),
)
STORIES = {"VAE": "vae", "VAE+": "vae-plus", "TVAE": "triplet-tvae"}
SETTINGS = (
    *("batch_size", "learning_rate", "halve_every", "mmd_weight", "transformation_weight"),
    *("transition_scale", "angle", "shear", "shift", "crop"),
)
LIKELIHOODS = {"TVAE": -92.0, "VAE": -93.0, "VAE+": -94.0}  # section 3, in nats


def job_of(context: Context, kind: str, data: str, z_dim: int, **numbers: Any) -> Job:
    """Return the training of a model, one of `STORIES`, on these data."""
    own = [f"{name} {value}" for name, value in numbers.items()]
    return context.job(
        f"{STORIES[kind]}-mnist",
        " ".join([STORIES[kind], data, str(z_dim), *own]),
        numbers={"data": data, "z_dim": z_dim, "validation": 0, **numbers},
        label=kind,
        # A TVAE takes several times as long as a VAE.
        cost=kind == "TVAE",
    )


def settings_of(context: Context, data: str, z_dim: int) -> dict[str, Any]:
    """Return what a result says of the training of its models, that of a TVAE among them."""
    return job_of(context, "TVAE", data, z_dim).settings(*SETTINGS)


@experiment("giannone-likelihood", BUDGETS, takes=TAKES)
def likelihood(context: Context) -> Result:
    """Marginal likelihood of test images, importance-weighted (section 3)."""
    data = context.data or "mnist"
    found = context.apply(_likelihoods, [job_of(context, k, data, 10) for k in LIKELIHOODS])
    budget, on_mnist = context.budget, data == "mnist"
    rows: list[list[Cell]] = [
        [kind, paper if on_mnist else None, *ours]
        for (kind, paper), ours in zip(LIKELIHOODS.items(), found, strict=True)
    ]
    own = {"test_images": budget.test_images, "particles": budget.particles}
    return Result(
        title="log p(x) of test images (nats), 10 dimensions",
        columns=["model", "paper (approx.)", "grey", "binarised", "k-hat>0.7 (%)"],
        rows=rows,
        settings={**settings_of(context, data, 10), **own},
        notes=[
            "All models are trained on grey pixels by cross-entropy, as in the paper. `grey` is "
            "that cross-entropy under the model, `binarised` the density of pixels drawn once as "
            "Bernoulli of their grey values; the paper does not say which of the two it reports."
        ],
    )


def _likelihoods(job: Job) -> list[float]:
    """Those of grey and of binarised pixels, and the share of images with a bad k-hat."""
    context, parts = job.context, job.train().parts
    pair = parts.story.image_pair(parts)
    assert pair is not None
    test = parts.splits.test.take(slice(context.budget.test_images))
    grey, binary = (
        log_evidence_of_batches(
            *pair,
            maker,
            num_particles=context.budget.particles,
            seed=context.seed,
            progress=False,
        )
        for maker in (Plain(test), Binarised(test))
    )
    bad = 100 * (grey.k_hat > 0.7).double().mean().item()
    return [grey.log_evidence.mean().item(), binary.log_evidence.mean().item(), bad]
