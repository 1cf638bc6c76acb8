"""What an EquiVAE is measured by."""

from __future__ import annotations

from dataclasses import replace

import torch

from pyro_latents.data.batches import Batches, BatchMaker, Plain, mixed_seed
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import ImportanceSampling, log_evidence_of_batches
from pyro_latents.losses.enumeration import TraceEnum_ELBO
from pyro_latents.programs import local_parameters
from pyro_latents.stories.equivae.batches import OfClass
from pyro_latents.stories.equivae.classifiers import distance_error, network_error
from pyro_latents.stories.story import Parts

ROWS = 500


def labelled_metrics(
    parts: Parts, batches: BatchMaker, sampling: ImportanceSampling
) -> dict[str, float]:
    """Return the bound of equation (4) term by term, and the metrics of unlabelled points."""
    found = bound_terms(parts.model, parts.guide, batches, seed=parts.seed)
    return {**found, **unlabelled_metrics(parts, batches.examples, sampling)}


def unlabelled_metrics(
    parts: Parts, test: Examples, sampling: ImportanceSampling
) -> dict[str, float]:
    """Return what is known of test points when their labels are not.

    ``elbo_unlabelled`` is the bound of equation (6) and ``log_likelihood`` an importance-weighted
    estimate of `log p(x)`, both with the class means as codes and `y` summed exactly;
    ``distance_error`` and ``error_rate`` (of `q(y | x)`) are in per cent.
    """
    return {
        "elbo_unlabelled": enumerated_bound(parts, test),
        **classification_errors(parts, test),
        **_likelihood(parts, test, sampling),
    }


@torch.no_grad()
def classification_errors(parts: Parts, test: Examples) -> dict[str, float]:
    """Return ``distance_error``, and ``error_rate`` if `q(y | x)` is a network, in per cent."""
    assert test.y is not None
    model, guide = parts.model, parts.guide
    found = {"distance_error": distance_error(model.embed(test.x), model.class_means, test.y)}
    if getattr(guide, "classifier", None) is not None:
        found["error_rate"] = network_error(guide.label_logits, test.x, test.y)
    return found


@torch.no_grad()
def enumerated_bound(parts: Parts, examples: Examples) -> float:
    """Return the bound of equation (6), in nats per point, with the class means as codes."""
    model, guide, total = parts.model, parts.guide, 0.0
    loss = TraceEnum_ELBO(max_plate_nesting=1)
    with local_parameters(model, guide):
        for number, (x,) in enumerate(Batches(Plain(examples), ROWS, seed=0, shuffle=False)):
            torch.manual_seed(mixed_seed(parts.seed, number))
            total -= loss.loss(model, guide, x)
    return total / len(examples)


@torch.no_grad()
def _likelihood(parts: Parts, test: Examples, sampling: ImportanceSampling) -> dict[str, float]:
    """`log p(x) = log sum_y p(x, y)`, the particles shared by the classes."""
    model, guide = parts.model, parts.guide
    particles = max(1, sampling.particles // model.num_classes)
    test = replace(test.take(slice(sampling.points)), extras={})
    joint = [
        log_evidence_of_batches(
            # What a model of both kinds of points has for one of them.
            model.process,
            guide.infer,
            OfClass(test, label),
            num_particles=particles,
            seed=mixed_seed(parts.seed, label),
            progress=False,
        )
        for label in range(model.num_classes)
    ]
    log_joint = torch.stack([evidence.log_evidence for evidence in joint])
    best = log_joint.argmax(0, keepdim=True)
    k_hat = torch.stack([evidence.k_hat for evidence in joint]).gather(0, best)
    return {
        "log_likelihood": log_joint.logsumexp(0).mean().item(),
        "log_likelihood_particles": particles * model.num_classes,
        "log_likelihood_points": len(test),
        "k_hat_above_0.7": 100 * (k_hat > 0.7).double().mean().item(),
    }
