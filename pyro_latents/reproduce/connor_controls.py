"""Whether images keep their class along learned paths, beside moves that are no paths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_latents.checks.classifier import Classifier, features_and_classes
from pyro_latents.models.vaells import select
from pyro_latents.stories.story import Parts
from pyro_latents.transport import transport

# Parts of the way from the closest anchor to a code, and of an operator's usual reach.
ON_THE_WAY, REACHES = (0.25, 0.5, 0.75), (0.25, 0.5, 1.0)


def kept_with_controls(
    parts: Parts, classifier: Classifier, x: Tensor, y: Tensor, *, seed: int
) -> list[list[Any]]:
    """Return rows of how many images keep their class, in per cent, with binomial errors.

    Orbits begin at the codes of images and go to both sides as far as the median path from the
    closest anchor does, or a part of that. Their controls move each code as far, in a direction
    drawn from all. Paths from the closest anchor to the code stand beside the straight lines
    between the same ends.
    """
    model, generator = parts.model, torch.Generator().manual_seed(seed)
    with torch.no_grad():
        codes = model.code(x)
        starts, c = closest_paths(model, codes, y)

    def row(what: str, moved: Tensor) -> list[Any]:
        with torch.no_grad():
            images = model.observation(moved).mean
        return [what, *_share(kept(classifier, images, y))]

    rows = [["real images", *_share(kept(classifier, x[:, None], y))]]
    rows.append(row("reconstructions", codes[:, None]))
    way = torch.tensor(ON_THE_WAY)[:, None]
    on_path = model.operators(way * c[:, None], starts[:, None]).detach()
    rows.append(row("on the path from the closest anchor", on_path))
    on_line = (1 - way) * starts[:, None] + way * codes[:, None]
    rows.append(row("on the straight line between its ends", on_line))
    for m, reach in enumerate(c.abs().median(0).values):
        for part in REACHES:
            moved = _along(model, codes, m, part * reach)
            far = (moved - codes[:, None]).norm(dim=-1, keepdim=True)
            way_off = torch.randn(moved.shape, generator=generator)
            elsewhere = codes[:, None] + far * way_off / way_off.norm(dim=-1, keepdim=True)
            rows.append(row(f"operator {m + 1}, {part:g} of its reach", moved))
            rows.append(row("a random direction, as far", elsewhere))
    return rows


def closest_paths(model: Any, codes: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the closest anchor of each code, and the coefficients from there to the code."""
    starts = model.starts(y)
    best = model.best_path(starts, codes)
    return select(starts, best["k"]), best["c"]


def kept(classifier: Classifier, images: Tensor, y: Tensor) -> Tensor:
    """Whether images, `batch moves *x_shape`, are of their row's class: `batch moves`."""
    found = features_and_classes(classifier, images.flatten(0, 1))[1]
    return found.view(images.shape[:2]) == y[:, None]


def _along(model: Any, codes: Tensor, operator: int, reach: Tensor) -> Tensor:
    psi = model.operators.psi.detach()[operator : operator + 1]
    return transport(psi, torch.stack([-reach, reach])[:, None], codes[:, None])


def _share(kept: Tensor) -> tuple[float, float]:
    """The mean over images in per cent, and its standard error."""
    kept = 100 * kept.double().mean(1)
    return kept.mean().item(), (kept.std() / len(kept) ** 0.5).item()
