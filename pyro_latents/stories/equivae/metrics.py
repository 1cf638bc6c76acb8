"""What an EquiVAE is measured by, and the classifiers of Feige (2019), section 3.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pyro_latents.data.batches import Plain, mixed_seed
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.evaluation.evidence import ImportanceSampling, log_evidence_of_batches
from pyro_latents.evaluation.metrics import Metrics, of_evidence
from pyro_latents.evaluation.pareto import largest_reliable_k
from pyro_latents.losses.enumeration import TraceEnum_ELBO
from pyro_latents.models.equivae import SemiSupervisedEquiVAE
from pyro_latents.programs import local_parameters
from pyro_latents.stories.equivae.batches import OfClass
from pyro_latents.stories.story import Parts


def unlabelled_metrics(parts: Parts, test: Examples, sampling: ImportanceSampling) -> Metrics:
    """Return what is known of test points when their labels are not.

    ``elbo_unlabelled`` is the bound of equation (6), of a guide that infers labels, and
    ``log_likelihood`` an importance-weighted estimate of `log p(x)`, both with the class means as
    codes and `y` summed exactly; ``distance_error`` and ``error_rate`` (of `q(y | x)`) are in per
    cent.
    """
    bound = {"elbo_unlabelled": _enumerated_bound(parts, test)} if infers_labels(parts) else {}
    return {
        **bound,
        **classification_errors(parts, test),
        **_likelihood(parts, test, sampling),
    }


def infers_labels(parts: Parts) -> bool:
    """Whether the guide can do without labels: one of one's own need not where there are all."""
    return hasattr(parts.guide, "infer") or isinstance(parts.model, SemiSupervisedEquiVAE)


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
def _enumerated_bound(parts: Parts, examples: Examples) -> float:
    """The bound of equation (6), in nats per point, with the class means as codes."""
    loss = TraceEnum_ELBO(max_plate_nesting=1)
    batches = seeded_batches(Plain(examples), size=500, seed=parts.seed)
    with local_parameters(parts.model, parts.guide):
        losses = [loss.loss(parts.model, parts.guide, *batch) for batch in batches]
    return -sum(losses) / len(examples)


@torch.no_grad()
def _likelihood(parts: Parts, test: Examples, sampling: ImportanceSampling) -> Metrics:
    """`log p(x) = log sum_y p(x, y)`, the particles shared by the classes.

    A guide of one's own that infers labels draws them.
    """
    model, infer = parts.model, getattr(parts.guide, "infer", parts.guide)
    test = replace(test.take(slice(sampling.points)), extras={})
    if infers_labels(parts) and infer is parts.guide:
        found = log_evidence_of_batches(
            model, infer, Plain(test), num_particles=sampling.particles, seed=parts.seed
        )
        return of_evidence(found, sampling.particles)
    particles = max(1, sampling.particles // model.num_classes)
    joint = [
        log_evidence_of_batches(
            # What a model of both kinds of points has for one of them.
            model.process,
            infer,
            OfClass(test, label),
            num_particles=particles,
            seed=mixed_seed(parts.seed, label),
            progress=False,
        )
        for label in range(model.num_classes)
    ]
    log_joint = torch.stack([evidence.log_evidence for evidence in joint])
    best = log_joint.argmax(0, keepdim=True)
    k_hat = torch.stack([evidence.k_hat for evidence in joint]).gather(0, best)[0]
    return {
        "log_likelihood": log_joint.logsumexp(0),
        "log_likelihood_particles": particles * model.num_classes,
        "log_likelihood_points": len(test),
        "k_hat_above_threshold": 100.0 * (k_hat > largest_reliable_k(particles)),
    }


def distance_error(codes: Tensor, class_means: Tensor, y: Tensor) -> float:
    """Return the per cent of points whose nearest class mean is of another class than theirs."""
    return _error(torch.cdist(codes, class_means).argmin(-1), y)


def network_error(network: Callable[[Tensor], Tensor], inputs: Tensor, y: Tensor) -> float:
    """Return the per cent of points that a network of logits takes for another class."""
    return _error(predictions(network, inputs), y)


@torch.no_grad()
def predictions(network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return the most probable classes, of shape `n`."""
    return torch.cat([network(part).argmax(-1) for part in inputs.split(1_000)])


def _error(predicted: Tensor, y: Tensor) -> float:
    return 100 * (predicted != y.to(predicted.device)).double().mean().item()


def fit_classifier(
    network: nn.Module,
    inputs: Tensor,
    y: Tensor,
    *,
    steps: int,
    seed: int,
    batch_size: int = 100,
    learning_rate: float = 1e-3,
) -> nn.Module:
    """Train a network of logits by cross-entropy and Adam, its rate falling along a cosine.

    Args:
        network: Maps `batch ...` to logits, `batch classes`; it is returned.
        inputs: Of shape `n ...`, on the device of the network.
        y: Integer classes, of shape `n`.
        steps: Gradient steps.
        seed: Of the order of the batches and of the dropout.
        batch_size: Points in a step; all of them if there are fewer.
        learning_rate: The first step size.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(mixed_seed(seed, steps))
    order = torch.empty(0, dtype=torch.long)
    size = min(batch_size, len(inputs))
    network.train()
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(mixed_seed(seed, steps))
        for _ in range(steps):
            if len(order) < size:
                order = torch.cat([order, torch.randperm(len(inputs), generator=generator)])
            index, order = order[:size].to(inputs.device), order[size:]
            optimizer.zero_grad()
            cross_entropy(network(inputs[index]), y[index]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
