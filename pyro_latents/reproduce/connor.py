"""The synthetic manifolds of Connor et al. (2020): figures 2, 3, 4, 7, 8 and 9."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.programs import local_parameters
from pyro_latents.reproduce.connor_pictures import bars, embeddings, operators_in_the_plane
from pyro_latents.reproduce.experiment import Budget, Context, Result, experiment
from pyro_latents.stories.story import Parts
from pyro_latents.stories.vaells.metrics import measure, of_circles, of_rotation
from pyro_latents.stories.vaells.paths import rank_correlation, spiral_length
from pyro_latents.transport import transport

BASELINES = {"VAE": "vae", "hyperspherical VAE": "hyperspherical-vae", "VampPrior VAE": "vamp-vae"}
DRAWS, PATHS, PATH_STEPS = 600, 2, 60
# Of the figure's draws, wider than in training, as in the authors' runs.
FIGURE_RATE, FIGURE_NOISE = {"swiss-roll": 0.05, "circles": 0.1}, 0.03
BUDGETS = (
    # The synthetic manifolds are small: the paper's 3,000 to 4,000 steps are minutes as well.
    Budget(name="quick", steps=1_000),
    Budget(name="hours"),
    Budget(name="paper"),
)


@experiment("connor-swiss-roll", BUDGETS, takes=())
def swiss_roll(context: Context) -> Result:
    """Codes of a swiss roll under four models, and paths along it (figures 2 and 3)."""
    trained = _train(context, "swiss-roll")
    test = trained["VAELLS"].splits.test
    position = spiral_length(test.extras["position"])
    metrics = measure(trained["VAELLS"], trained["VAELLS"].batches("test"), 1)
    best = max(range(4), key=lambda k: metrics[f"path_correlation_{k}"])
    rows: list[list[Any]] = [
        ["VAELLS, path from anchor 1", metrics["path_correlation_0"]],
        [f"VAELLS, path from anchor {best + 1}", metrics[f"path_correlation_{best}"]],
        [
            f"VAELLS, straight line from anchor {best + 1}",
            metrics[f"euclidean_correlation_{best}"],
        ],
    ]
    origin = int((position - position[_nearest_anchor(trained["VAELLS"], best)]).abs().argmin())
    for name in BASELINES:
        codes = encoded(trained[name], test.x)
        distance = (codes - codes[origin]).norm(dim=1)
        along = (position - position[origin]).abs()
        rows.append([f"{name}, straight line from that point", rank_correlation(distance, along)])
    return Result(
        title="Rank correlation of a distance between codes with the distance along the roll",
        columns=["distance", "Spearman's correlation"],
        rows=rows,
        settings=_settings(trained),
        figures=_pictures(context, trained, test.extras["position"]),
        notes=[
            "Paths are inferred from one anchor to every test point. Anchor 1 is the innermost. "
            "The paper has pictures only."
        ],
    )


@experiment("connor-circles", BUDGETS, takes=())
def circles(context: Context) -> Result:
    """Codes of two concentric circles under four models (figures 4, 7, 8 and 9)."""
    trained = _train(context, "circles")
    test = trained["VAELLS"].splits.test
    assert test.y is not None
    rows: list[list[Any]] = []
    for name, parts in trained.items():
        codes = encoded(parts, test.x)
        along = of_rotation(parts.model.operators.psi, codes, test.y) if name == "VAELLS" else {}
        rows.append(
            [
                name,
                *of_circles(codes, test.y).values(),
                *(along.get(f"circle_{label}_from_path") for label in (0, 1)),
            ]
        )
    norms = torch.linalg.matrix_norm(trained["VAELLS"].model.operators.psi.detach().cpu())
    magnitudes = context.save(
        bars(norms, "magnitude of each operator"), "connor-circles-magnitudes"
    )
    return Result(
        title="Codes of two circles: distance from an orbit in per cent, and per cent told apart",
        columns=[
            "model",
            "inner, distance",
            "outer, distance",
            "told apart",
            "inner, from the learned path",
            "outer, from the learned path",
        ],
        rows=rows,
        settings=_settings(trained),
        figures=[*_pictures(context, trained, test.y.float()), magnitudes],
        notes=[
            "Distances are the largest of a code from the ellipse around zero that fits the codes "
            "of its circle best, in per cent of their mean length; the learned path is one of the "
            "learned operator that fits both circles best. The paper has pictures only."
        ],
    )


def encoded(parts: Parts, x: Tensor) -> Tensor:
    """The posterior's mode of each data point's code, which is on the sphere where codes are."""
    with torch.no_grad(), local_parameters(parts.model, parts.guide):
        return parts.guide.posterior(x)["z"].mode.cpu()


def _train(context: Context, data: str) -> dict[str, Parts]:
    """The trained models by name, on the processor, where pictures are drawn."""
    trained = {}
    for name, story in {**BASELINES, "VAELLS": "vaells"}.items():
        job = context.job(f"{story}-{data}", f"{story} {data}")
        trained[name] = job.train(progress=True).parts.to("cpu")
    return trained


def _nearest_anchor(parts: Parts, k: int) -> int:
    """The test point whose code is nearest to that of an anchor."""
    codes = encoded(parts, parts.splits.test.x)
    with torch.no_grad():
        anchor = parts.model.starts()[k]
    return int((codes - anchor).norm(dim=1).argmin())


def _pictures(context: Context, trained: dict[str, Parts], color: Tensor) -> list[Path]:
    parts = trained["VAELLS"]
    data, model, test = parts.story.data, parts.model, parts.splits.test
    side_by_side = {"truth": test.extras["latent"]}
    side_by_side |= {name: encoded(r, test.x) for name, r in trained.items()}
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
    name = f"connor-{data}"
    return [
        context.save(embeddings(side_by_side, color), f"{name}-embeddings"),
        context.save(
            operators_in_the_plane(psi, codes, color, anchors, (draws, k), paths),
            f"{name}-operators",
        ),
    ]


def _paths(parts: Parts, codes: Tensor) -> list[Tensor]:
    """Inferred paths between pairs of test points, of the same circle if there are circles."""
    test, model = parts.splits.test, parts.model
    labels = test.y if test.y is not None else torch.zeros(len(test))
    order = test.extras["position"].argsort()
    paths = []
    for pair in range(PATHS):
        rows = order[labels[order] == labels.unique()[pair % len(labels.unique())]]
        ends = rows[torch.tensor([0.1 + 0.3 * pair, 0.6 + 0.3 * pair]).mul(len(rows) - 1).long()]
        start, end = codes[ends]
        c, _ = model.operators.infer(start[None], end[None], model.inference_weight)
        t = torch.linspace(0, 1, PATH_STEPS)[:, None]
        paths.append(transport(model.operators.psi.detach(), t * c, start))
    return paths


def _settings(trained: dict[str, Parts]) -> dict[str, Any]:
    settings = {name: asdict(parts.story) for name, parts in trained.items()}
    return {"provenance": trained["VAELLS"].splits.provenance, **settings}
