"""The likelihoods of section 3 of Giannone et al. (2019), with how far each can be trusted."""

from __future__ import annotations

from dataclasses import replace
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
# The recipe's weight of coherence is that with which T carries; at 5 hardly anything is asked.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "TVAE": ("TVAE", {}),
    "TVAE, weight 5": ("TVAE", {"coherence_weight": 5.0}),
    "VAE": ("VAE", {}),
    "VAE+": ("VAE+", {}),
}
# The encoder's normals are refined before they propose: on 200 validation images of a VAE with 10
# dimensions 20 steps are within .02 nats of 100, and .6 above 1,000 draws of the encoder's own.
REFINED: dict[str, Any] = {"steps": 20, "learning_rate": 0.05}
# Images, the first ones; those that are simulated from the model for the interval.
BINARISED, ANNEALED, SIMULATED = 1_000, 300, 100
CHAINS: dict[str, Any] = {"num_chains": 8, "num_temperatures": 100}


class Measured(NamedTuple):
    """What a trained model is worth on test images, each alone, in nats.

    Args:
        elbo: The bound of all of them, on average.
        evidence: The importance-weighted `log p(x)` of each, and its diagnostics.
        annealed: `log p(x)` of each of the first images by annealing.
        width: Of the interval of annealing, of each of some images simulated from the model.
        binarised: The importance-weighted one of binarised pixels, of the first images.
    """

    elbo: float
    evidence: Evidence
    annealed: Tensor
    width: Tensor
    binarised: Tensor


@experiment("giannone-likelihood", BUDGETS, takes=TAKES)
def likelihood(context: Context) -> Result:
    """Marginal likelihood of test images, with refined proposals and by annealing (section 3)."""
    data, budget = context.data or "mnist", context.budget
    sizes = {(name, size): _job(context, name, data, size) for name in MODELS for size in SIZES}
    bounds = dict(zip(sizes, context.apply(_bound, list(sizes.values())), strict=True))
    chosen = max(SIZES, key=lambda size: bounds["TVAE", size])
    longer = {"epochs": budget.own["longer"]} if "longer" in budget.own else {}
    jobs = [_job(context, name, data, chosen, **longer) for name in MODELS]
    found = dict(zip(MODELS, context.apply(_measured, jobs), strict=True))
    vae = found["VAE"]
    rows: list[list[Any]] = [
        [
            "pixels on their own",
            *[None] * (len(SIZES) + 2),
            _independent_pixels(jobs[0]),
            *[None] * 10,
        ]
    ]
    for name, (elbo, evidence, annealed, width, binarised) in found.items():
        weighted = evidence.log_evidence
        cells = [
            *_mean(weighted),
            *_mean(weighted - vae.evidence.log_evidence),
            100 * (evidence.k_hat > 0.7).double().mean().item(),
            _mean(annealed)[0],
            *_mean(annealed - vae.annealed),
            *_mean(width),
            _mean(binarised)[0],
        ]
        paper = PAPER.get(name) if data == "mnist" else None
        rows.append([name, *(bounds[name, size] for size in SIZES), paper, elbo, *cells])
    columns = ["model", *(f"validation elbo, z {size}" for size in SIZES), "paper (approx.)"]
    columns += ["elbo", "importance", "error", "less the VAE's", "error", "k-hat>0.7 (%)"]
    columns += ["annealed", "less the VAE's, annealed", "error", "interval", "error", "binarised"]
    own: dict[str, Any] = {
        "test_images": budget.test_images,
        "particles": budget.particles,
        "refined": REFINED,
    }
    own |= {"binarised": BINARISED, "annealed": ANNEALED, "simulated": SIMULATED, **CHAINS}
    own |= {"chosen": f"z_dim {chosen}, by the TVAE's bound of validation images"}
    return Result(
        title=f"log p(x) of test images, each alone, {chosen} dimensions (nats)",
        columns=columns,
        rows=rows,
        settings=settings_of(context, data, chosen, **own, **longer),
        notes=[
            "All models are trained on grey pixels by cross-entropy, as in the paper, and `log "
            "p(x)` is that cross-entropy under the model; `binarised` is the density of pixels "
            "drawn once as Bernoulli of their grey values. The paper does not say which of the "
            "two it reports. Importance weights are of the encoder's normals, refined for each "
            "image; where k-hat is high they are low, by more where codes have more dimensions, "
            "and the models are better told apart by annealing.",
            f"Annealing is of the first {ANNEALED} images, and the interval, from its lower bound "
            f"to its upper one, of {SIMULATED} that are simulated from the model. Errors are "
            "standard errors over images, of differences paired ones. Pixels on their own are "
            "Bernoulli with the training images' means.",
        ],
    )


def _job(context: Context, name: str, data: str, size: int, **numbers: Any) -> Job:
    kind, own = MODELS[name]
    return replace(job_of(context, kind, data, size, **own, **numbers), label=name)


def _mean(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    return values.double().mean().item(), standard_error(values)


def _bound(job: Job) -> float:
    """Train, and return the bound of validation images, each alone, in nats."""
    parts = job.train().parts
    batches = Plain(parts.splits.validation.take(slice(job.context.budget.test_images)))
    return bound_terms(*parts.story.alone(parts), batches, seed=job.context.seed)["elbo"]


def _measured(job: Job) -> Measured:
    context, parts = job.context, job.train().parts
    test = parts.splits.test.take(slice(context.budget.test_images))
    model, guide = parts.story.alone(parts)
    evidence = _evidence(job, parts, Plain(test))
    binarised = _evidence(job, parts, Binarised(test.take(slice(BINARISED))))
    torch.manual_seed(context.seed)
    annealed = annealed_evidence(model, guide, test.x[:ANNEALED], **CHAINS).log_evidence
    lower, upper = evidence_interval(model, guide, test.x[:SIMULATED], **CHAINS)
    elbo = bound_terms(model, guide, Plain(test), seed=context.seed)["elbo"]
    return Measured(elbo, evidence, annealed, upper - lower, binarised.log_evidence)


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
