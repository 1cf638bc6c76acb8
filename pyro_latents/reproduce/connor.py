"""The synthetic manifolds of Connor et al. (2020): figures 2, 3, 4, 7, 8 and 9."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.data.batches import mixed_seed
from pyro_latents.models.vaells import VAELLS
from pyro_latents.programs import local_parameters
from pyro_latents.reproduce.connor_figures import bars, embeddings, operators_in_the_plane
from pyro_latents.reproduce.connor_starts import chosen, told
from pyro_latents.reproduce.experiment import Budget, Context, Job, Result, experiment, labels
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.metrics import (
    measure,
    of_circles,
    of_rotation,
    rank_correlation,
    spiral_length,
)
from pyro_latents.training.step import seed_draws
from pyro_latents.training.steps import MILESTONE
from pyro_latents.transport import transport

BASELINES = {"VAE": "vae", "hyperspherical VAE": "hyperspherical-vae", "VampPrior VAE": "vamp-vae"}
DRAWS, PATHS, PATH_STEPS = 600, 2, 60
# Of the figure's draws, wider than in training, as in the authors' runs.
FIGURE_RATE, FIGURE_NOISE = {"swiss-roll": 0.05, "circles": 0.1}, 0.03
# The synthetic manifolds are small: the paper's 3,000 to 4,000 steps are minutes as well. How many
# starts there are for each training, and of how many epochs those are that compare them.
STARTS = ((24, 7), (6, 30))
BUDGETS = (
    Budget(name="quick", steps=1_000, own={"seeds": 1}),
    Budget(name="hours", own={"seeds": 3, "starts": STARTS}),
    Budget(name="paper", own={"seeds": 3, "starts": STARTS}),
)
OVER_SEEDS = ("mean of seeds", "lowest", "highest", "before training")


@experiment("connor-swiss-roll", BUDGETS, takes=())
def swiss_roll(context: Context) -> Result:
    """Codes of a swiss roll under four models, and paths along it (figures 2 and 3)."""
    seeds, untrained = trained(context, "swiss-roll")
    begun = [of_roll(parts) for parts in untrained]
    found = [of_roll(each["VAELLS"]) for each in seeds]
    what = {"path": "VAELLS, path", "straight line": "VAELLS, straight line"}
    rows = [
        [name, *over_seeds([each[kind] for each in found], [each[kind] for each in begun])]
        for kind, name in what.items()
    ]
    for name in BASELINES:
        lines = [_of_straight_lines(each[name], each["VAELLS"]) for each in seeds]
        rows.append([f"{name}, straight line", *over_seeds(lines)])
    parts = seeds[0]["VAELLS"]
    return Result(
        title="Rank correlation of a distance between codes with the distance along the roll",
        columns=["distance from an anchor, the mean of four", *OVER_SEEDS],
        rows=rows,
        settings=_settings(context, seeds),
        figures=_pictures(context, seeds[0], parts.splits.test.extras["position"]),
        notes=[
            "Spearman's correlation over all test points, the mean over all anchors. Paths are "
            "inferred from an anchor to every point; lines of the other models begin at the "
            "point nearest to it. Aids that the paper has not: `candidates`, the best of 200 "
            "random operators to begin with; `even_codes`, a first encoder with codes of even "
            "spread; `search`, starts of its own for every path. What each does is in "
            "`connor-swiss-roll-aids`. The paper has pictures only.",
            *told(context),
        ],
    )


@experiment("connor-circles", BUDGETS, takes=())
def circles(context: Context) -> Result:
    """Codes of two concentric circles under four models (figures 4, 7, 8 and 9)."""
    seeds, untrained = trained(context, "circles")
    begun = [from_curves(parts) for parts in untrained]
    rows = []
    for name in seeds[0]:
        found = [from_curves(each[name]) for each in seeds]
        for what in found[0]:
            before = [each[what] for each in begun] if name == "VAELLS" else []
            rows.append([name, what, *over_seeds([each[what] for each in found], before)])
    parts = seeds[0]["VAELLS"]
    magnitudes = bars(
        torch.linalg.matrix_norm(parts.model.operators.psi.detach()), "magnitude of each operator"
    )
    return Result(
        title="Codes of two circles, in per cent",
        columns=["model", "what", *OVER_SEEDS],
        rows=rows,
        settings=_settings(context, seeds),
        figures=[
            *_pictures(context, seeds[0], labels(parts.splits.test).float()),
            context.save(magnitudes, "connor-circles-magnitudes"),
        ],
        notes=[
            "Distances are the largest of a code from the ellipse around zero that fits the codes "
            "of its circle best, in per cent of their mean length; the learned path is one of the "
            "learned operator that fits both circles best. Aids that the paper has not, beside "
            "its recipe: `even_codes`, a first encoder with codes of even spread, and rates that "
            "fall to zero; what they do, and what a linear start does, is in "
            "`connor-circles-aids`. The paper has pictures only.",
            *told(context),
        ],
    )


def over_seeds(values: Sequence[float], before: Sequence[float] = ()) -> list[float | None]:
    """Return the mean, the lowest and the highest of some values, and the mean of others."""
    first = sum(before) / len(before) if before else None
    return [sum(values) / len(values), min(values), max(values), first]


def of_roll(parts: Parts) -> dict[str, float]:
    """The mean rank correlation over the anchors, of paths and of straight lines."""
    metrics = measure(parts, parts.batches("test"))
    anchors = range(parts.model.anchors.shape[1])
    names = {"path": "path_correlation", "straight line": "euclidean_correlation"}
    found = {
        kind: sum(float(metrics[f"{name}_{k}"]) for k in anchors) / len(anchors)
        for kind, name in names.items()
    }
    return found | {"mse": float(metrics["mse"])}


def from_curves(parts: Parts) -> dict[str, float]:
    """How far codes of two circles are from curves, by what they are measured from."""
    x, y = parts.splits.test.x, labels(parts.splits.test)
    codes = encoded(parts, x)
    found = of_circles(codes, y)
    names = {"circle_0_from_orbit": "inner circle from an ellipse"}
    names["circle_1_from_orbit"] = "outer circle from an ellipse"
    if isinstance(parts.model, VAELLS):
        # Operators that do not rotate have no closed paths: codes are as far from them as can be.
        missing = {f"circle_{label}_from_path": 100.0 for label in (0, 1)}
        found |= missing | of_rotation(parts.model.operators.psi.detach(), codes, y)
        names["circle_0_from_path"] = "inner circle from a learned path"
        names["circle_1_from_path"] = "outer circle from a learned path"
    names["circles_separable"] = "told apart"
    return {name: found[metric] for metric, name in names.items()}


def before_training(job: Job) -> Parts:
    """Return what a training begins with, after what is done before its first step."""
    parts = job.build()
    begin = parts.plan.milestones.get(0)
    if begin is not None:
        seed_draws(mixed_seed(job.seed, MILESTONE, 0))
        begin()
    return parts


def _of_straight_lines(parts: Parts, vaells: Parts) -> float:
    """The same of straight lines in another model, from the points nearest to the anchors."""
    test = vaells.splits.test
    position, codes = spiral_length(test.extras["position"]), encoded(vaells, test.x)
    with torch.no_grad():
        nearest = torch.cdist(vaells.model.starts(), codes).argmin(1)
    lines = torch.cdist(encoded(parts, test.x)[nearest], encoded(parts, test.x))
    along = (position - position[nearest, None]).abs()
    found = [rank_correlation(line, way) for line, way in zip(lines, along, strict=True)]
    return sum(found) / len(found)


def encoded(parts: Parts, x: Tensor) -> Tensor:
    """The posterior's mode of each data point's code, which is on the sphere where codes are."""
    with torch.no_grad(), local_parameters(parts.model, parts.guide):
        return parts.guide.posterior(x)["z"].mode.cpu()


def trained(context: Context, data: str) -> tuple[list[dict[str, Parts]], list[Parts]]:
    """The trained models of each seed by name, and VAELLS before training.

    They are on the processor, where pictures are drawn.
    """
    ours = chosen(context, f"vaells-{data}", f"vaells {data}", {})
    others = [
        context.job(f"{story}-{data}", f"{story} {data} {seed}", seed=seed)
        for seed in context.seeds
        for story in BASELINES.values()
    ]
    parts = [each.to("cpu") for each in context.train([*ours, *others])]
    baselines = iter(parts[len(ours) :])
    seeds = [
        {**{name: next(baselines) for name in BASELINES}, "VAELLS": each}
        for each in parts[: len(ours)]
    ]
    return seeds, [before_training(job) for job in ours]


def _pictures(context: Context, models: dict[str, Parts], color: Tensor) -> list[Path]:
    parts = models["VAELLS"]
    data, model, test = parts.story.data, parts.model, parts.splits.test
    side_by_side = {"truth": test.extras["latent"]}
    side_by_side |= {name: encoded(each, test.x) for name, each in models.items()}
    codes, psi = side_by_side["VAELLS"], model.operators.psi.detach()
    generator = torch.Generator().manual_seed(context.seed)
    with torch.no_grad():
        anchors = model.starts()
        k = torch.randint(len(anchors), (DRAWS,), generator=generator)
        uniform = torch.rand(DRAWS, len(psi), generator=generator) - 0.5
        c = -uniform.sign() * torch.log1p(-2 * uniform.abs()) / FIGURE_RATE[data]
        noise = FIGURE_NOISE * torch.randn(DRAWS, 2, generator=generator)
        draws = transport(psi, c, anchors[k]) + noise
        paths = _paths(parts, codes)
    operators = operators_in_the_plane(psi, codes, color, anchors, (draws, k), paths)
    name = f"connor-{data}"
    return [
        context.save(embeddings(side_by_side, color), f"{name}-embeddings"),
        context.save(operators, f"{name}-operators"),
    ]


def _paths(parts: Parts, codes: Tensor) -> list[Tensor]:
    """Inferred paths between pairs of test points, of the same circle if there are circles."""
    test, model = parts.splits.test, parts.model
    y = test.y if test.y is not None else torch.zeros(len(test))
    order, kinds = test.extras["position"].argsort(), y.unique()
    paths = []
    for pair in range(PATHS):
        rows = order[y[order] == kinds[pair % len(kinds)]]
        ends = rows[torch.tensor([0.1 + 0.3 * pair, 0.6 + 0.3 * pair]).mul(len(rows) - 1).long()]
        start, end = codes[ends]
        c, _ = model.operators.infer(start[None], end[None], model.inference_weight)
        t = torch.linspace(0, 1, PATH_STEPS)[:, None]
        paths.append(transport(model.operators.psi.detach(), t * c, start))
    return paths


def _settings(context: Context, seeds: list[dict[str, Parts]]) -> dict[str, Any]:
    settings = {name: asdict(parts.story) for name, parts in seeds[0].items()}
    provenance = seeds[0]["VAELLS"].splits.provenance
    starts = [list(each) for each in context.budget.own.get("starts", ())]
    own = {"seeds": len(seeds), "starts": starts, "precision": context.precision}
    return {"provenance": provenance, **settings, **own}
