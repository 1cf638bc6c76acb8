"""The likelihoods of section 3 of Giannone et al. (2019), with how far each can be trusted."""

from __future__ import annotations

from dataclasses import replace
from math import hypot
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from pyro_latents.data.batches import Binarised, Plain
from pyro_latents.evaluation.annealed import annealed_evidence, evidence_interval
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import log_evidence_of_batches
from pyro_latents.evaluation.paired import mean_and_standard_error
from pyro_latents.guides.refined import Refined
from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import BUDGETS, TAKES, job_of, settings_of

PAPER = {"TVAE": -92.0, "VAE": -93.0, "VAE+": -94.0}  # section 3, in nats
# The recipe's weight of coherence is that with which T carries; at 5 hardly anything is asked.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "TVAE": ("TVAE", {}),
    "TVAE, weight 5": ("TVAE", {"coherence_weight": 5.0}),
    "VAE": ("VAE", {}),
    "VAE+": ("VAE+", {}),
    "VAE+, views without KL": ("VAE+, views without KL", {}),
}
# All models have one size, at which the validation bounds of these are highest, on average.
SIZES, CHOOSING = (10, 32, 100), ("TVAE", "VAE")
# The encoder's normals are refined before they propose: on 200 validation images of a VAE with 10
# dimensions 20 steps are within .02 nats of 100, and .6 above 1,000 draws of the encoder's own.
REFINED: dict[str, Any] = {"steps": 20, "learning_rate": 0.05}
# Images that are chosen at random, and those that are simulated from the model.
BINARISED, ANNEALED, SIMULATED = 1_000, 200, 100
CHAINS: dict[str, Any] = {"num_chains": 8, "num_temperatures": 100}

# Behind the model and its validation bounds.
COLUMNS = (
    *("paper (approx.)", "elbo", "importance", "unreliable (%)"),
    *("annealing adds", "error", "log p(x)", "error", "less the VAE's", "error"),
    *("binarised", "error", "interval", "error"),
)
NOTES = (
    "Trained by cross-entropy, as in the paper, on grey pixels, and `log p(x)` is that "
    "cross-entropy under the model; `binarised` is the density of pixels drawn once as Bernoulli "
    "of their grey values, by importance. The paper does not say which of the two it reports.",
    "Importance weights are of the encoder's normals, refined for each image. Annealing is of "
    "images chosen at random, the same for all models: what it adds there is added to the "
    "importance of all images. Both are lower bounds in expectation. The interval is that of "
    "annealing, from its lower bound to its upper one, on images simulated from the model, whose "
    "pixels are 0 or 1.",
    "The size is that of the highest validation bound, averaged over the TVAE and the VAE, each "
    "trained for fewer epochs. One training of each: errors are standard errors over images, of "
    "differences over the same images, and say nothing of other trainings. Pixels on their own "
    "are Bernoulli with the training images' means.",
)


class Measured(NamedTuple):
    """What a trained model is worth on test images, each alone, in nats.

    Args:
        elbo: The bound of all of them, on average.
        weighted: The importance-weighted `log p(x)` of each.
        unreliable: The share of them whose weights are not to be trusted.
        gain: What annealing adds to it, of each of some of them.
        binarised: The importance-weighted one of binarised pixels, of each of some of them.
        width: Of the interval of annealing, of each of some images simulated from the model.
    """

    elbo: float
    weighted: Tensor
    unreliable: float
    gain: Tensor
    binarised: Tensor
    width: Tensor


@experiment("giannone-likelihood", BUDGETS, takes=TAKES)
def likelihood(context: Context) -> Result:
    """Marginal likelihood of test images, by importance and annealing (section 3)."""
    data, budget = context.data or "mnist", context.budget
    searched = {(name, z): _job(context, name, data, z) for name in CHOOSING for z in SIZES}
    bounds = dict(zip(searched, context.apply(_bound, list(searched.values())), strict=True))
    chosen = max(SIZES, key=lambda size: fmean(bounds[name, size] for name in CHOOSING))
    longer = {"epochs": budget.own["longer"]} if "longer" in budget.own else {}
    jobs = [_job(context, name, data, chosen, **longer) for name in MODELS]
    found = dict(zip(MODELS, context.apply(_measured, jobs), strict=True))
    vae = found["VAE"]
    floor = _independent_pixels(jobs[0])
    bounded = [None] * (len(SIZES) + 2)
    rows: list[list[Any]] = [
        ["pixels on their own", *bounded, floor[0], *[None] * 3, *floor, *[None] * 6]
    ]
    for name, own in found.items():
        cells = [
            own.elbo,
            own.weighted.mean().item(),
            own.unreliable,
            *mean_and_standard_error(own.gain),
            *_annealed(own.weighted, own.gain),
            *_annealed(own.weighted - vae.weighted, own.gain - vae.gain),
            *mean_and_standard_error(own.binarised),
            *mean_and_standard_error(own.width),
        ]
        paper = PAPER.get(name) if data == "mnist" else None
        rows.append([name, *(bounds.get((name, size)) for size in SIZES), paper, *cells])
    settings = {
        "epochs_of_validation": budget.numbers.get("epochs"),
        "test_images": len(vae.weighted),
        "particles": budget.particles,
        "annealed_images": len(vae.gain),
        "binarised_images": len(vae.binarised),
        "simulated_images": len(vae.width),
        "refined": REFINED,
        **CHAINS,
        **longer,
    }
    return Result(
        title=f"log p(x) of test images, each alone, {chosen} dimensions (nats)",
        columns=["model", *(f"validation elbo, z {size}" for size in SIZES), *COLUMNS],
        rows=rows,
        settings=settings_of(context, data, chosen, **settings),
        notes=NOTES,
    )


def _job(context: Context, name: str, data: str, size: int, **numbers: Any) -> Job:
    kind, own = MODELS[name]
    return replace(job_of(context, kind, data, size, **own, **numbers), label=name)


def _annealed(weighted: Tensor, gain: Tensor) -> tuple[float, float]:
    """The mean over all images with what is added over some of them, and its standard error."""
    mean, error = mean_and_standard_error(weighted)
    more, error_of_more = mean_and_standard_error(gain)
    return mean + more, hypot(error, error_of_more)


def _bound(job: Job) -> float:
    """Train, and return the bound of validation images, each alone, in nats."""
    parts = job.train().parts
    batches = Plain(parts.splits.validation)
    return bound_terms(*parts.story.alone(parts), batches, seed=job.context.seed)["elbo"]


def _measured(job: Job) -> Measured:
    context, parts = job.context, job.train().parts
    particles, seed = context.budget.particles, context.seed
    test = parts.splits.test.take(slice(context.budget.test_images))
    pair = model, guide = parts.story.alone(parts)
    refined = Refined(model, guide, **REFINED)
    options: dict[str, Any] = {"num_particles": particles, "seed": seed, "progress": False}
    found = log_evidence_of_batches(model, refined, Plain(test), **options)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    binary = Binarised(test.take(order[:BINARISED]))
    torch.manual_seed(seed)
    some = order[:ANNEALED]
    annealed = annealed_evidence(*pair, test.x[some], **CHAINS).log_evidence
    lower, upper = evidence_interval(*pair, test.x[:SIMULATED], **CHAINS)
    return Measured(
        elbo=bound_terms(*pair, Plain(test), seed=seed)["elbo"],
        weighted=found.log_evidence,
        unreliable=100 * found.is_unreliable(particles).double().mean().item(),
        gain=annealed - found.log_evidence[some],
        binarised=log_evidence_of_batches(model, refined, binary, **options).log_evidence,
        width=upper - lower,
    )


def _independent_pixels(job: Job) -> tuple[float, float]:
    """The mean `log p(x)` of test images of independent pixels, and its error, in nats."""
    splits = job.build().splits
    mean = (splits.train.x.sum(0) + 1) / (len(splits.train) + 2)
    x = splits.test.take(slice(job.context.budget.test_images)).x
    cross_entropy = binary_cross_entropy(mean.expand_as(x), x, reduction="none")
    return mean_and_standard_error(-cross_entropy.flatten(1).sum(1))
