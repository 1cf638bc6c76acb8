"""Figures 3, 4 and 5 of Feige (2019)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from pyro_latents.data.batches import mixed_seed
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.files import write_atomically, write_json
from pyro_latents.models.equivae import joined
from pyro_latents.programs import centre
from pyro_latents.reproduce.experiment import (
    Context,
    Job,
    Result,
    experiment,
    labels,
    lattice,
    tiled,
)
from pyro_latents.reproduce.feige import (
    BENCHMARK,
    BUDGETS,
    TAKES,
    benchmark_of,
    code_errors,
    job_of,
    network_of,
    settings_of,
    untrained,
)
from pyro_latents.runs.recipe import Run
from pyro_latents.stories.equivae.batches import ClassTable
from pyro_latents.stories.equivae.metrics import distance_error, predictions
from pyro_latents.stories.story import Parts

SETS_SHOWN = 5  # members of the sets of figure 3, as in the paper
SAMPLES = 100  # of each class, that the benchmark classifier is shown
ROWS_SHOWN, STEPS_SHOWN = 10, 8
PLANE_CLASSES = (3, 4, 5, 6)  # of figure 5
PLANE_SIDE = 10  # images a side of a grid of figure 5
ROWS = 1_000
TERMS = ("elbo", "reconstruction", "kl_v")
NO_UMAP = [
    "The planes are principal components: umap-learn is not installed. For the paper's, "
    "pip install 'pyro_latents[umap]'."
]


@experiment("feige-figure3", BUDGETS, takes=TAKES)
def figure3(context: Context) -> Result:
    """Invariant and equivariant codes in the plane, and the learning curve (figure 3)."""
    job = _job(context)
    parts, curve = _trained_with_curve(context, job)
    shown = _shown(parts)
    generator = torch.Generator().manual_seed(context.seed)
    r = _codes_of_sets(parts.model.embed(shown.x), labels(shown), generator)
    v = equivariant(parts, shown, r)
    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, codes, name in zip(axes, (r, v), ("invariant r", "equivariant v"), strict=False):
        points, method = _plane(codes, context.seed)
        scatter = axis.scatter(*points.T.numpy(), c=labels(shown).numpy(), s=2, cmap="tab10")
        axis.set(title=f"{name} ({method})", xticks=[], yticks=[])
    figure.colorbar(scatter, ax=axes[1], label="class")
    epochs = range(1, len(curve) + 1)
    for key, name, sign in zip(TERMS, ("ELBO", "reconstruction", "-KL"), (1, 1, -1), strict=True):
        axes[2].plot(epochs, [sign * row[key] for row in curve], ".-", label=name)
    axes[2].set(xlabel="epoch", ylabel="nats per validation image")
    axes[2].legend(frameon=False)
    return Result(
        title="Bound of validation images by epoch (nats), log p(y) in the reconstruction",
        columns=["epoch", *TERMS],
        rows=[[epoch, *map(row.get, TERMS)] for epoch, row in zip(epochs, curve, strict=True)],
        settings={**settings_of(job), "plane": method, "set_size": SETS_SHOWN},
        figures=[context.save(figure, "feige-figure3")],
        notes=["The paper has a figure without numbers here.", *NO_UMAP[method == "UMAP" :]],
    )


@experiment("feige-figure4", BUDGETS, takes=TAKES)
def figure4(context: Context) -> Result:
    """Samples, interpolations, styles across classes, and what is in r and in v (figure 4)."""
    job = _job(context)
    parts, benchmark = _model_and_benchmark(job)
    classes = torch.arange(parts.model.num_classes)
    generator = torch.Generator().manual_seed(context.seed)
    y = classes.repeat_interleave(SAMPLES)
    v = torch.randn(len(y), parts.model.v_dim, generator=generator)
    drawn = _decoded(parts, parts.model.class_means[y], v)
    recognised = predictions(benchmark, drawn).view(-1, SAMPLES) == classes[:, None]
    share = 100 * recognised.double().mean(1)
    shown = drawn.unflatten(0, (len(classes), SAMPLES))[:, :ROWS_SHOWN].transpose(0, 1)
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    axes = figure.subplots(1, 3)
    _show(axes[0], shown, "draws of p(v), a column a class")
    _show(axes[1], _interpolations(parts).transpose(0, 1), "from one image to another, r fixed")
    _show(axes[2], _style_grid(parts), "content by row, style by column")
    train, test = parts.splits.train, parts.splits.test
    torch.manual_seed(mixed_seed(context.seed))
    codes = [_codes(parts, part) for part in (train, test)]
    points = [train, test]
    errors = [code_errors(job, [part[kind] for part in codes], points)[0] for kind in codes[0]]
    chance = torch.bincount(labels(test)).max() / len(test)
    return Result(
        title="What is in the two codes (%)",
        columns=["measure", "%"],
        rows=[
            ["samples recognised as their class", share.mean().item()],
            ["the least recognised class", share.min().item()],
            ["test accuracy of a network on f_inv(x)", 100 - errors[0]],
            ["test accuracy of the same network on means of v", 100 - errors[1]],
            ["test accuracy of the same network on draws of v", 100 - errors[2]],
            ["chance", 100 * chance.item()],
            ["test accuracy of the distance rule", 100 - _distance(parts, test)],
        ],
        settings={**settings_of(job), "samples_a_class": SAMPLES},
        figures=[context.save(figure, "feige-figure4")],
        notes=[
            "Samples are means of p(x | r, v) with v from its prior and r the class mean of the "
            "training points, classified by the benchmark classifier. Means and draws of v are "
            "those of q(v | r, x) at the mean r of the true class. The paper has pictures without "
            "numbers here."
        ],
    )


@experiment("feige-figure5", BUDGETS, takes=TAKES)
def figure5(context: Context) -> Result:
    """Two-dimensional codes, and images over their planes (figure 5)."""
    job = _job(context, r_dim=2, v_dim=2)
    parts = job.train().parts.to("cpu")
    shown = _shown(parts)
    codes = parts.model.embed(shown.x)
    figure = Figure(figsize=(16, 5), layout="constrained")
    names = [f"v {label}" for label in PLANE_CLASSES]
    axes = figure.subplot_mosaic(
        [["codes", "r", *names[:2]], ["codes", "r", *names[2:]]], width_ratios=(2, 2, 1, 1)
    )
    points = axes["codes"].scatter(codes[:, 0], codes[:, 1], c=shown.y, s=2, cmap="tab10")
    axes["codes"].set(title="f_inv(x)", xlabel="r1", ylabel="r2")
    figure.colorbar(points, ax=axes["codes"], label="class")
    low, high = codes.quantile(0.01, 0), codes.quantile(0.99, 0)
    grid = low + (high - low) * _square(0.0, 1.0)
    _show(axes["r"], _decoded(parts, grid, torch.zeros(2)), "images over r, at v = 0")
    for name, label in zip(names, PLANE_CLASSES, strict=True):
        images = _decoded(parts, parts.model.class_means[label], _square(-2.0, 2.0))
        _show(axes[name], images, f"{label}: v in [-2, 2]")
    return Result(
        title="Two-dimensional codes: test error of the distance rule (%)",
        columns=["codes", "error"],
        rows=[["2 and 2", _distance(parts, parts.splits.test)]],
        settings=settings_of(job),
        figures=[context.save(figure, "feige-figure5")],
        notes=["The paper has a figure without numbers here."],
    )


def equivariant(parts: Parts, examples: Examples, r: Tensor, *, drawn: bool = False) -> Tensor:
    """Return the means of `q(v | r, x)`, of shape `n v_dim`; draws where asked for, or of a flow.

    The invariant codes r are of shape `n r_dim`.
    """
    with torch.no_grad():
        pairs = zip(examples.x.split(ROWS), r.split(ROWS), strict=True)
        posteriors = (parts.guide.v_posterior(x, part) for x, part in pairs)
        return torch.cat([q.sample() if drawn else centre(q) for q in posteriors])


def _job(context: Context, **numbers: Any) -> Job:
    return job_of(context, context.data or "mnist", **numbers)


def _trained_with_curve(context: Context, job: Job) -> tuple[Parts, list[dict[str, float]]]:
    """Train epoch by epoch, and measure the bound of the validation images after each."""
    # A folder that nothing else trains in: a run that is ahead cannot be taken up at its start.
    job = replace(job, folder=job.folder.with_name(f"{job.folder.name}-by-epoch"))
    path = job.folder / "curve.json"
    curve: list[dict[str, float]] = []
    if path.exists():
        curve = json.loads(path.read_text())["validation"]
    for epoch in range(len(curve) + 1, job.build().story.epochs + 1):
        parts = job.train(epochs=epoch).parts
        batches = parts.batches(_split(parts))
        curve.append(bound_terms(parts.model, parts.guide, batches, seed=context.seed))
        write_json(path, {"validation": curve})
    return Run(job.folder).parts.to("cpu"), curve


def _model_and_benchmark(job: Job) -> tuple[Parts, nn.Module]:
    """Train a model and the benchmark classifier side by side; both are on the processor."""
    paths = job.context.apply(_path, [job, replace(job, label=BENCHMARK)])
    parts = Run(paths[0]).parts.to("cpu")
    network = network_of(parts)
    network.load_state_dict(torch.load(paths[1], weights_only=True))
    return parts, network.eval()


def _path(job: Job) -> Path:
    """Train a model or the benchmark, and return its folder or the file of its state."""
    if job.label != BENCHMARK:
        return job.train().path
    path = job.folder.with_name(f"benchmark-{job.folder.name}.pt")
    if not path.exists():
        state = benchmark_of(job, untrained(job)).cpu().state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: torch.save(state, file))
    return path


def _split(parts: Parts) -> str:
    """The split that the paper shows; the test images where there are no validation images."""
    return "validation" if len(parts.splits.validation) else "test"


def _shown(parts: Parts) -> Examples:
    return getattr(parts.splits, _split(parts))


def _codes_of_sets(codes: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The mean codes of `SETS_SHOWN` other points of each point's class, uniform among them."""
    r = torch.empty_like(codes)
    for label in y.unique():
        index = torch.nonzero(y == label)[:, 0]
        index = index[torch.randperm(len(index), generator=generator)]
        # The next ones on a circle in random order: none is the point itself.
        others = [codes[index].roll(-step, 0) for step in range(1, SETS_SHOWN + 1)]
        r[index] = torch.stack(others).mean(0)
    return r


def _plane(codes: Tensor, seed: int) -> tuple[Tensor, str]:
    """The codes in two dimensions, by UMAP or, where it is not installed, by PCA."""
    try:
        from umap import UMAP
    except ImportError:
        from sklearn.decomposition import PCA

        return torch.from_numpy(PCA(2).fit_transform(codes.double().numpy())), "PCA"
    # One job, which UMAP would otherwise say it takes because of the seed.
    reducer = UMAP(random_state=seed, n_jobs=1)
    return torch.from_numpy(reducer.fit_transform(codes.numpy())), "UMAP"


def _codes(parts: Parts, examples: Examples) -> dict[str, Tensor]:
    """`f_inv(x)`, and means and draws of `q(v | r, x)` at the mean `r` of each point's class."""
    r = parts.model.class_means[labels(examples)]
    return {
        "r": parts.model.embed(examples.x),
        "means of v": equivariant(parts, examples, r),
        "draws of v": equivariant(parts, examples, r, drawn=True),
    }


def _distance(parts: Parts, test: Examples) -> float:
    return distance_error(parts.model.embed(test.x), parts.model.class_means, labels(test))


def _decoded(parts: Parts, r: Tensor, v: Tensor) -> Tensor:
    """The means of `p(x | r, v)`, of shape `*leading *x_shape`."""
    with torch.no_grad():
        output = parts.model.decoder(joined(r, v))
        return parts.model.likelihood(output).mean.clamp(0, 1)


def _interpolations(parts: Parts) -> Tensor:
    """Paths in v between two images of each class, `classes steps *x_shape`, ends as they are."""
    shown = _shown(parts)
    paths = []
    for label, r in enumerate(parts.model.class_means):
        pair = shown.take(torch.nonzero(labels(shown) == label)[:2, 0])
        first, last = equivariant(parts, pair, r.expand(len(pair), -1))[[0, -1]]
        weights = torch.linspace(0, 1, STEPS_SHOWN)[:, None]
        path = _decoded(parts, r, first + weights * (last - first))
        paths.append(torch.cat([pair.x[:1], path, pair.x[-1:]]))
    return torch.stack(paths)


def _style_grid(parts: Parts) -> Tensor:
    """Images of the codes `r` of one point and `v` of another, `classes classes *x_shape`."""
    generator = torch.Generator().manual_seed(mixed_seed(parts.seed))
    table = ClassTable(_shown(parts), parts.splits.num_classes)
    classes = torch.arange(parts.model.num_classes)
    chosen = _shown(parts).take(table.members(classes, 1, generator)[:, 0])
    r = parts.model.class_means
    return _decoded(parts, r[:, None], equivariant(parts, chosen, r)[None])


def _square(low: float, high: float) -> Tensor:
    """Points of a square, `PLANE_SIDE PLANE_SIDE 2`, the second coordinate rising upwards."""
    return lattice(torch.linspace(low, high, PLANE_SIDE))


def _show(axis: Axes, images: Tensor, title: str) -> None:
    """Draw a grid of images, `rows columns channels height width`."""
    axis.imshow(tiled(images).numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set(title=title, xticks=[], yticks=[])
