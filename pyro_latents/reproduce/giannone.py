"""Table 1, figure 2, the likelihoods and an ablation for Giannone et al. (2019)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_latents.data.batches import Binarised, Plain
from pyro_latents.data.examples import Examples
from pyro_latents.evaluation.evidence import log_evidence_of_batches
from pyro_latents.evaluation.knn import knn_accuracy
from pyro_latents.plots import save
from pyro_latents.recipes.recipe import Recipe, Run
from pyro_latents.recipes.vae import VAESettings
from pyro_latents.reproduce.experiment import Cell, Context, Result, experiment
from pyro_latents.reproduce.giannone_models import (
    Spec,
    codes_of,
    for_all,
    labels_of,
    probe_sizes,
    settings_of,
    train_all,
    train_one,
    transfer_data,
)

# Table 1: model and z_dim -> accuracy on affNIST and on its own test data, by training data.
TABLE1 = {
    ("VAE", 10): {"mnist": (55.9, 96.2), "fashion-mnist": (32.8, 81.7)},
    ("VAE+", 10): {"mnist": (70.2, 96.7), "fashion-mnist": (36.3, 82.2)},
    ("TVAE", 10): {"mnist": (73.5, 96.6), "fashion-mnist": (55.1, 84.0)},
    ("VAE", 100): {"mnist": (66.3, 96.2), "fashion-mnist": (43.1, 82.6)},
    ("VAE+", 100): {"mnist": (79.2, 97.4), "fashion-mnist": (43.3, 82.7)},
    ("TVAE", 100): {"mnist": (90.6, 98.1), "fashion-mnist": (81.2, 86.9)},
}
LIKELIHOODS = {"TVAE": -92.0, "VAE": -93.0, "VAE+": -94.0}  # section 3, in nats
LABELS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
DRAWS = 20  # of the labelled images, as in figure 2
WEIGHTS = (0.0, 0.05, 1.0, 10.0, 1000.0)
PARTICLES = 1000
IMAGES = {"quick": 500, "hours": 1_000, "paper": 10_000}  # test images of the likelihoods


@dataclass(frozen=True)
class Probe:
    """What nearest neighbours make of a model's codes.

    Args:
        transfer: Accuracy on data the model was not trained on, in per cent.
        own: Accuracy on test data of its own kind, in per cent.
        seconds: Of training and probing.
        provenance: Of the transfer data.
    """

    transfer: float
    own: float
    seconds: float
    provenance: str


@experiment("giannone-table1")
def table1(context: Context) -> Result:
    """Nearest neighbours on posterior means, with transfer to affNIST (table 1)."""
    sources = [context.data] if context.data else ["mnist", "fashion-mnist"]
    return _table(context, sources, list(TABLE1))


@experiment("giannone-transfer")
def transfer(context: Context) -> Result:
    """The row of table 1 that the paper is about: Fashion-MNIST to affNIST, 100 dimensions."""
    return _table(context, [context.data or "fashion-mnist"], [k for k in TABLE1 if k[1] == 100])


@experiment("giannone-ablation")
def ablation(context: Context) -> Result:
    """The representation against the weight of the coherence terms, 100 dimensions."""
    data = context.data or "fashion-mnist"
    specs = [Spec("TVAE", data, 100, {"mmd_weight": weight}) for weight in WEIGHTS]
    specs.append(Spec("VAE+", data, 100))
    probes = for_all(_probe, context, specs)
    rows = [
        [spec.settings.get("mmd_weight", spec.kind), probe.transfer, probe.own, probe.seconds]
        for spec, probe in zip(specs, probes, strict=True)
    ]
    return Result(
        title=f"5-NN accuracy (%) against the MMD weight, trained on {data}",
        columns=["weight", "transfer", "own", "seconds"],
        rows=rows,
        settings={**settings_of(context, specs[0]), "transfer_data": probes[0].provenance},
    )


@experiment("giannone-figure2")
def figure2(context: Context) -> Result:
    """Accuracy on affNIST against the number of labels, over 20 draws of them (figure 2)."""
    data = context.data or "fashion-mnist"
    specs = [Spec(kind, data, 100) for kind in ("VAE", "VAE+", "TVAE")]
    labelled, test = transfer_data(data, context)
    rows: list[list[Cell]] = []
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axis = figure.subplots()
    for spec, recipe in zip(specs, train_all(context, specs), strict=True):
        codes, tested = codes_of(recipe, labelled, test)
        y, test_y = labels_of(labelled, codes), labels_of(test, codes)
        counts = [count for count in LABELS if count <= len(codes)]
        found = torch.tensor(
            [
                [
                    knn_accuracy(codes[i], y[i], tested, test_y)
                    for i in _draws(len(codes), count, context.seed, codes.device)
                ]
                for count in counts
            ]
        )
        mean, sd = found.mean(1), found.std(1)
        rows += [
            [spec.kind, count, m, s]
            for count, m, s in zip(counts, mean.tolist(), sd.tolist(), strict=True)
        ]
        axis.errorbar(counts, mean, sd, label=spec.kind, marker=".", capsize=2)
    axis.set(xscale="log", xlabel="labelled images", ylabel="5-NN accuracy (%)")
    axis.legend(frameon=False)
    return Result(
        title=f"5-NN accuracy (%) on transfer data against labels, trained on {data}",
        columns=["model", "labels", "mean", "sd"],
        rows=rows,
        settings={
            **settings_of(context, specs[0]),
            "draws": DRAWS,
            "transfer_data": test.provenance,
        },
        figures=[save(figure, context.out / "giannone-figure2.png")],
        notes=["The paper has a figure without numbers here."],
    )


@experiment("giannone-likelihood")
def likelihood(context: Context) -> Result:
    """Marginal likelihood of test images, importance-weighted (section 3)."""
    data = context.data or "mnist"
    specs = [Spec(kind, data, 10) for kind in LIKELIHOODS]
    images = IMAGES[context.budget]
    on_mnist = data == "mnist"
    rows: list[list[Cell]] = []
    for spec, (grey, binary, bad) in zip(
        specs, for_all(_likelihoods, context, specs), strict=True
    ):
        rows.append([spec.kind, LIKELIHOODS[spec.kind] if on_mnist else None, grey, binary, bad])
    return Result(
        title="log p(x) of test images (nats), 10 dimensions",
        columns=["model", "paper (approx.)", "grey", "binarised", "k-hat>0.7 (%)"],
        rows=rows,
        settings={
            **settings_of(context, specs[0]),
            "test_images": images,
            "particles": PARTICLES,
        },
        notes=[
            "All models are trained on grey pixels by cross-entropy, as in the paper. `grey` is "
            "that cross-entropy under the model, `binarised` the density of pixels drawn once as "
            "Bernoulli of their grey values; the paper does not say which of the two it reports."
        ],
    )


def _table(context: Context, sources: list[str], models: list[tuple[str, int]]) -> Result:
    specs = [Spec(kind, data, z_dim) for data in sources for kind, z_dim in models]
    probes = dict(
        zip(
            [(spec.kind, spec.z_dim, spec.data) for spec in specs],
            for_all(_probe, context, specs),
            strict=True,
        )
    )
    columns = ["model", "z_dim"]
    for data in sources:
        for what in ("transfer", "own"):
            columns += [f"{data} {what}: paper", "ours"]
    rows: list[list[Cell]] = []
    for kind, z_dim in models:
        row: list[Cell] = [kind, z_dim]
        for data in sources:
            paper = TABLE1[kind, z_dim].get(data, (None, None))
            probe = probes[kind, z_dim, data]
            row += [paper[0], probe.transfer, paper[1], probe.own]
        rows.append([*row, round(sum(probes[kind, z_dim, data].seconds for data in sources))])
    first = next(iter(probes.values()))
    return Result(
        title="5-NN accuracy (%) on posterior means: transfer to affNIST, and own test data",
        columns=[*columns, "seconds"],
        rows=rows,
        settings={**settings_of(context, specs[0]), "transfer_data": first.provenance},
        notes=[
            f"Transfer data: {first.provenance}. One run each; the middle 28x28 pixels of 40x40."
        ],
    )


def _probe(job: tuple[Context, Spec]) -> Probe:
    context, spec = job
    began = time.perf_counter()
    recipe = Run(train_one(job)).recipe
    labelled, test = transfer_data(spec.data, context)
    own = probe_sizes(recipe.splits.train, recipe.splits.test, context)
    scores = [_accuracy(recipe, *pair) for pair in ((labelled, test), own)]
    seconds = time.perf_counter() - began
    return Probe(scores[0], scores[1], seconds, test.provenance)


def _accuracy(recipe: Recipe, labelled: Examples, test: Examples) -> float:
    codes, tested = codes_of(recipe, labelled, test)
    return knn_accuracy(codes, labels_of(labelled, codes), tested, labels_of(test, tested))


def _likelihoods(job: tuple[Context, Spec]) -> tuple[float, float, float]:
    context, spec = job
    recipe = Run(train_one(job)).recipe
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, guide = recipe.model.to(device), recipe.guide.to(device)
    if not isinstance(recipe.settings, VAESettings):
        model, guide = model.image_model(), guide.image_guide()
    images = IMAGES[context.budget]
    test = recipe.splits.test.take(slice(images)).to(device)
    found = [
        log_evidence_of_batches(
            model, guide, maker, num_particles=PARTICLES, seed=context.seed, progress=False
        )
        for maker in (Plain(test), Binarised(test))
    ]
    grey, binary = (evidence.log_evidence.mean().item() for evidence in found)
    return grey, binary, 100 * (found[0].k_hat > 0.7).double().mean().item()


def _draws(size: int, count: int, seed: int, device: torch.device) -> list[Tensor]:
    """The same draws of labelled images for every model."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(size, generator=generator)[:count].to(device) for _ in range(DRAWS)]
