"""The likelihoods of section 3 of Giannone et al. (2019), with how far each can be trusted."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from pyro_latents.data.batches import BatchMaker, Binarised, Plain
from pyro_latents.evaluation.annealed import annealed_evidence, evidence_interval
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import Evidence, log_evidence_of_batches
from pyro_latents.evaluation.paired import standard_error
from pyro_latents.guides.refined import Refined
from pyro_latents.reproduce.experiment import Context, Job, Result, experiment
from pyro_latents.reproduce.giannone import BUDGETS, TAKES, job_of, settings_of
from pyro_latents.stories.story import Parts

PAPER = {"TVAE": -92.0, "VAE": -93.0, "VAE+": -94.0}  # section 3, in nats
SIZES = (10, 32, 100)
# The encoder's normals are refined before they propose: on 200 validation images 20 steps are
# within .02 nats of 100, and .6 nats above 1,000 draws of the encoder's own.
REFINED: dict[str, Any] = {"steps": 20, "learning_rate": 0.05}
BINARISED, ANNEALED = 1_000, 100  # images, the first ones
CHAINS: dict[str, Any] = {"num_chains": 8, "num_temperatures": 100}


class Measured(NamedTuple):
    """What a trained model is worth on test images, each alone, in nats.

    Args:
        elbo: The bound of all of them, on average.
        evidence: The importance-weighted `log p(x)` of each, and its diagnostics.
        binarised: The same of binarised pixels, on average over the first images.
        gain: Of annealing over importance weights, for each of the first images.
        width: Of the interval of annealing on as many images simulated from the model.
    """

    elbo: float
    evidence: Evidence
    binarised: float
    gain: Tensor
    width: Tensor


@experiment("giannone-likelihood", BUDGETS, takes=TAKES)
def likelihood(context: Context) -> Result:
    """Marginal likelihood of test images, with refined proposals and by annealing (section 3)."""
    data, budget = context.data or "mnist", context.budget
    jobs = {(kind, size): job_of(context, kind, data, size) for kind in PAPER for size in SIZES}
    bounds = dict(zip(jobs, context.apply(_validation_bound, list(jobs.values())), strict=True))
    chosen = max(SIZES, key=lambda size: bounds["TVAE", size])
    tested = [jobs[kind, chosen] for kind in PAPER]
    found = dict(zip(PAPER, context.apply(_measured, tested), strict=True))
    vae = found["VAE"].evidence.log_evidence
    rows: list[list[Any]] = []
    for (kind, size), bound in bounds.items():
        if size != chosen:
            rows.append([kind, size, None, bound, *[None] * 11])
            continue
        elbo, evidence, binarised, gain, width = found[kind]
        log_p = evidence.log_evidence
        bad = 100 * (evidence.k_hat > 0.7).double().mean().item()
        pairs = (log_p, log_p - vae, gain, width)
        cells = [c for each in pairs for c in (each.mean().item(), standard_error(each))]
        paper = PAPER[kind] if data == "mnist" else None
        rows.append([kind, size, paper, bound, elbo, *cells[:4], binarised, bad, *cells[4:]])
    floor = _independent_pixels(jobs["VAE", chosen])
    rows.append(["pixels on their own", 0, None, None, None, floor, *[None] * 9])
    columns = ["model", "z_dim", "paper (approx.)", "validation elbo", "elbo", "log p(x)", "error"]
    columns += ["less the VAE's", "error", "binarised", "k-hat>0.7 (%)"]
    columns += ["annealed less it", "error", "interval", "error"]
    own = {"test_images": budget.test_images, "particles": budget.particles, "refined": REFINED}
    own |= {"binarised_images": BINARISED, "annealed_images": ANNEALED, **CHAINS}
    return Result(
        title="log p(x) of test images, each alone (nats)",
        columns=columns,
        rows=rows,
        settings=settings_of(
            context, data, chosen, **own, chosen="z_dim, by the TVAE's bound of validation images"
        ),
        notes=[
            "All models are trained on grey pixels by cross-entropy, as in the paper, and `log "
            "p(x)` is that cross-entropy under the model; `binarised` is the density of pixels "
            "drawn once as Bernoulli of their grey values. The paper does not say which of the "
            "two it reports. Importance weights are of the encoder's normals, refined for each "
            "image.",
            f"Annealing is of the first {ANNEALED} images, and the interval, from its lower bound "
            "to its upper one, of as many that are simulated from the model. Errors are standard "
            "errors over images. Pixels on their own are Bernoulli with the training images' "
            "means.",
        ],
    )


def _validation_bound(job: Job) -> float:
    """Train, and return the bound of validation images, each alone, in nats."""
    parts = job.train().parts
    batches = Plain(parts.splits.validation.take(slice(job.context.budget.test_images)))
    return bound_terms(*parts.story.alone(parts), batches, seed=job.context.seed)["elbo"]


def _measured(job: Job) -> Measured:
    context, parts = job.context, job.train().parts
    test = parts.splits.test.take(slice(context.budget.test_images))
    model, guide = parts.story.alone(parts)
    few = test.x[:ANNEALED]
    evidence = _evidence(job, parts, Plain(test))
    torch.manual_seed(context.seed)
    annealed = annealed_evidence(model, guide, few, **CHAINS).log_evidence
    lower, upper = evidence_interval(model, guide, few, **CHAINS)
    return Measured(
        bound_terms(model, guide, Plain(test), seed=context.seed)["elbo"],
        evidence,
        _evidence(job, parts, Binarised(test.take(slice(BINARISED)))).log_evidence.mean().item(),
        (annealed - evidence.log_evidence[: len(few)]).double(),
        (upper - lower).double(),
    )


def _evidence(job: Job, parts: Parts, batches: BatchMaker) -> Evidence:
    model, guide = parts.story.alone(parts)
    return log_evidence_of_batches(
        model,
        Refined(model, guide, **REFINED),
        batches,
        num_particles=job.context.budget.particles,
        seed=job.context.seed,
        progress=False,
    )


def _independent_pixels(job: Job) -> float:
    """The mean `log p(x)` of test images whose pixels are independent, in nats."""
    splits = job.build().splits
    mean = (splits.train.x.sum(0) + 1) / (len(splits.train) + 2)
    x = splits.test.x
    return -binary_cross_entropy(mean.expand_as(x), x, reduction="sum").item() / len(x)
