"""The graph of a model, as Pyro finds it, drawn as SVG: no program beside this one is needed."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import torch
from pyro import poutine
from pyro.infer.inspect import get_model_relations

from pyro_latents.programs import evaluation_mode, local_parameters

# Of a site, and of the spaces between sites, in pixels.
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 92, 44, 26, 34, 26
INK, SEEN, PLATE = "#1b1b1b", "#d5d9e0", "#9aa3b2"


def model_graph(model: Any, *batch: Any) -> str:
    """Return the sites of a model, what they depend on and their plates, as an SVG element.

    Observed sites are grey, and those that are computed of others have a dashed outline. What
    depends on what is that of the process run forward, by its keyword ``size``.

    Args:
        model: The model.
        *batch: Its arguments, by which sites are observed.
    """
    forward = {"size": len(batch[0])}
    with local_parameters(model), evaluation_mode(model), torch.random.fork_rng():
        found = get_model_relations(model, (), forward, include_deterministic=True)
        seen = poutine.trace(model).get_trace(*batch).observation_nodes
    parents = found["sample_sample"]
    places = _places(parents)
    plates = [_plate(name, sites, places) for name, sites in found["plate_sample"].items()]
    arrows = [_arrow(places[up], places[down]) for down, ups in parents.items() for up in ups]
    nodes = [
        _node(name, kind, *places[name], seen=name in seen)
        for name, kind in found["sample_dist"].items()
    ]
    width = max(x for x, _ in places.values()) + WIDTH / 2 + MARGIN
    height = max(y for _, y in places.values()) + HEIGHT / 2 + 2 * MARGIN
    label = escape(f"graph of the model: {', '.join(places)}")
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="system-ui, sans-serif">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>'
        f"{''.join(plates + arrows + nodes)}</svg>"
    )


def _places(parents: Mapping[str, list[str]]) -> dict[str, tuple[float, float]]:
    """The middle of each site: in the row below its parents, beside others of that row."""
    rows: dict[str, int] = {}
    for name, ups in parents.items():  # in the order of the program: parents come first
        rows[name] = max((rows[up] + 1 for up in ups), default=0)
    # A site without parents stands right above the first that depends on it.
    for name, ups in parents.items():
        below = [rows[down] for down, others in parents.items() if name in others]
        if not ups and below:
            rows[name] = min(below) - 1
    by_row: dict[int, list[str]] = {}
    for name, row in rows.items():
        by_row.setdefault(row, []).append(name)
    widest = max(map(len, by_row.values()))
    places = {}
    for row, names in by_row.items():
        start = MARGIN + WIDTH / 2 + (widest - len(names)) * (WIDTH + ACROSS) / 2
        for i, name in enumerate(names):
            x = start + i * (WIDTH + ACROSS)
            places[name] = x, MARGIN + HEIGHT / 2 + row * (HEIGHT + DOWN)
    return places


def _node(name: str, kind: str, x: float, y: float, *, seen: bool) -> str:
    computed = kind == "Deterministic"
    dashed = ' stroke-dasharray="4 3"' if computed else ""
    fill = SEEN if seen and not computed else "#fff"
    return (
        f'<ellipse cx="{x:g}" cy="{y:g}" rx="{WIDTH / 2}" ry="{HEIGHT / 2}" fill="{fill}" '
        f'stroke="{INK}"{dashed}/>'
        f'<text x="{x:g}" y="{y - 2:g}" text-anchor="middle" font-size="14" '
        f'font-style="italic" fill="{INK}">{escape(name)}</text>'
        f'<text x="{x:g}" y="{y + 13:g}" text-anchor="middle" font-size="9" '
        f'fill="#555">{escape(kind)}</text>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """From the rim of one ellipse to that of another; bowed if it passes over a row."""
    (x, y), (u, v) = start, end
    rows = (v - y) / (HEIGHT + DOWN)
    bow = 0 if rows < 1.5 else (WIDTH + ACROSS) * (0.62 if u <= x else -0.62)
    middle = (x + u) / 2 + bow, (y + v) / 2
    points = [_rim(start, middle), middle, _rim(end, middle)]
    (a, b), (c, d), (e, f) = points
    path = f"M{a:.1f} {b:.1f} Q{c:.1f} {d:.1f} {e:.1f} {f:.1f}"
    return f'<path d="{path}" fill="none" stroke="{INK}" marker-end="url(#tip)"/>'


def _rim(centre: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from the centre of an ellipse to a point leaves it."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    scale = ((dx / (WIDTH / 2)) ** 2 + (dy / (HEIGHT / 2)) ** 2) ** 0.5 or 1.0
    return centre[0] + dx / scale, centre[1] + dy / scale


def _plate(name: str, sites: list[str], places: Mapping[str, tuple[float, float]]) -> str:
    """A frame around the sites of a plate, with its name."""
    xs, ys = zip(*(places[site] for site in sites), strict=True)
    pad = MARGIN * 0.6
    left, top = min(xs) - WIDTH / 2 - pad, min(ys) - HEIGHT / 2 - pad
    right, bottom = max(xs) + WIDTH / 2 + pad, max(ys) + HEIGHT / 2 + pad + 12
    label = escape(name.removesuffix("__CLONE"))
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}" '
        f'rx="8" fill="none" stroke="{PLATE}"/>'
        f'<text x="{right - 8:g}" y="{bottom - 6:g}" text-anchor="end" font-size="11" '
        f'fill="{PLATE}">{label}</text>'
    )
