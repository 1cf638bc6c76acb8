"""The classifiers of Feige (2019), section 3.1, on trained models and beside them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pyro_latents.data.examples import Examples
from pyro_latents.files import write_atomically
from pyro_latents.reproduce.experiment import Job
from pyro_latents.runs.recipe import Run
from pyro_latents.stories.equivae.classifiers import fit_classifier, network_error
from pyro_latents.stories.equivae.metrics import classification_errors
from pyro_latents.stories.equivae.networks import CodeClassifier, LabelClassifier
from pyro_latents.stories.equivae.recipes import EquiVAEStory
from pyro_latents.stories.story import Parts

CLASSIFIER_STEPS = 3_000
DROPOUT, CODE_DROPOUT = 0.5, 0.2
BENCHMARK = "benchmark"  # the label of a job that trains the classifier in the model's place

Errors = dict[str, float]


def errors(job: Job) -> Errors:
    """Train a model or the `BENCHMARK`, and return its errors on test data, in per cent.

    Those of a model are of the distance rule, of `q(y | x)`, and of a network on `f_inv(x)`.
    """
    began = time.perf_counter()
    if job.label == BENCHMARK:
        parts = _untrained(job)
        test = parts.splits.test
        assert test.y is not None
        found = {"benchmark": network_error(benchmark(job, parts), test.x, test.y)}
    else:
        parts = job.train().parts
        labelled, test = _story(parts).labelled(parts.splits), parts.splits.test
        codes = [parts.model.embed(part.x) for part in (labelled, test)]
        found = {
            **classification_errors(parts, test),
            "network": code_error(job, codes, [labelled, test]),
        }
    return {**found, "seconds": time.perf_counter() - began}


def code_error(job: Job, codes: list[Tensor], parts: list[Examples]) -> float:
    """Return the test error of the dropout network on codes, standardised by the labelled ones.

    Args:
        job: The training of the model.
        codes: Those of the labelled points and of the test points.
        parts: The labelled points and the test points, for their classes.
    """
    labelled, test = parts
    assert labelled.y is not None
    assert test.y is not None
    centre, spread = codes[0].mean(0), codes[0].std(0).clamp_min(1e-6)
    known, tested = ((part - centre) / spread for part in codes)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        network = CodeClassifier(codes[0].shape[1], int(labelled.y.max()) + 1, CODE_DROPOUT)
    steps = _steps(job)
    fit_classifier(network.to(known.device), known, labelled.y, steps=steps, seed=job.seed)
    return network_error(network, tested, test.y)


def benchmark(job: Job, parts: Parts) -> nn.Module:
    """Return the benchmark classifier, trained on the labelled points.

    It has the body of `f_inv` and two dropout layers, and sees as many points as the EquiVAE; with
    few labels, `CLASSIFIER_STEPS` batches.
    """
    story, steps = _story(parts), _steps(job)
    labelled = story.labelled(parts.splits)
    assert labelled.y is not None
    with torch.random.fork_rng():
        torch.manual_seed(parts.seed)
        network = _network(parts)
    if story.name == EquiVAEStory.name:
        steps = story.epochs * max(1, len(labelled) // story.batch_size)
    network = network.to(labelled.device)
    fit_classifier(network, labelled.x, labelled.y, steps=steps, seed=parts.seed)
    return network


def model_and_benchmark(job: Job) -> tuple[Parts, nn.Module]:
    """Train a model and the benchmark classifier side by side; both are on the processor."""
    paths = job.context.apply(_path, [job, replace(job, label=BENCHMARK)])
    parts = Run(paths[0]).parts.to("cpu")
    network = _network(parts)
    network.load_state_dict(torch.load(paths[1], weights_only=True))
    return parts, network.eval()


def _steps(job: Job) -> int:
    return job.context.budget.own.get("classifier_steps", CLASSIFIER_STEPS)


def _path(job: Job) -> Path:
    """Train a model or the benchmark, and return its folder or the file of its state."""
    if job.label != BENCHMARK:
        return job.train().path
    path = job.folder.with_name(f"benchmark-{job.folder.name}.pt")
    if not path.exists():
        state = benchmark(job, _untrained(job)).cpu().state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: torch.save(state, file))
    return path


def _untrained(job: Job) -> Parts:
    """The parts of a job, where there is most to compute with."""
    return job.build().parts.to("cuda" if torch.cuda.is_available() else "cpu")


def _network(parts: Parts) -> LabelClassifier:
    story = _story(parts)
    return LabelClassifier(story.x_shape, parts.splits.num_classes, story.width, DROPOUT)


def _story(parts: Parts) -> EquiVAEStory:
    assert isinstance(parts.story, EquiVAEStory)
    return parts.story
