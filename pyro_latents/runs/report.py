"""One self-contained page on a run."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from pyro_latents.data.own import IN_MEMORY
from pyro_latents.errors import UserError
from pyro_latents.files import check_writable, write_text
from pyro_latents.live.page import live_section
from pyro_latents.live.program import Unsupported
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.runs.checking import HEADS, Row
from pyro_latents.runs.model_graph import model_graph
from pyro_latents.runs.opened import Opened
from pyro_latents.runs.units import floor_in_words, metric_rows
from pyro_latents.training.report import summary

# Data points that a graph is found with.
GRAPH_POINTS = 2
# Letters of a cell of a table that are not parted into lines.
SHORT = 20

# What each picture shows, by the name of its file and in the order of the page; others follow,
# called by their names.
CAPTIONS = {
    "transfer": "The transformation T of one triplet, in the first column, applied to other "
    "images and, in the last row, its inverse.",
    "poses": "Test images in several poses, each above what the guide infers of it, decoded in "
    "the reference pose.",
    "styles": "Test images in the first row; below them each class in the style of the image.",
    "orbits": "What the learned operators do: orbits through the anchors, in both directions.",
    "points": "Codes of test points; test points, their reconstructions and draws of the prior in "
    "the plane of the data's two principal components. Colours are classes or positions.",
    "images": "Test images, their reconstructions, and draws from the prior.",
    "history": "Loss over the epochs, in nats per data point.",
    "calibration": "Ranks of the true latent variables among the guide's draws, on data simulated "
    "from the model: a line a coordinate, and the band that all stay in if the guide is right.",
    "replicates": "Held-out images, and replicates of each given itself.",
    "u_values": "Share of replicates below each held-out data point, for every statistic, given "
    "the point itself. Flat is calibrated; a hump in the middle says that the code was inferred "
    "from the same point.",
    "hidden_replicates": "Held-out images of which a part was hidden from the guide, and "
    "replicates of that part given the rest.",
    "hidden_u_values": "Share of replicates below each hidden part, for every statistic. Peaks at "
    "the ends say that the model is surer of what it does not see than it may be.",
    "population": "The statistics of the test data and of as many draws from the prior.",
    "pixels": "Mean of the pixels against their predicted probability.",
}
PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.lead { color: #555; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #e4e4e4; }
svg { max-width: 100%; height: auto; }
td.short { white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; }
details { margin-top: 1rem; } summary { cursor: pointer; }
div.wide { overflow-x: auto; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="lead">$lead</p>
$body
</body>
</html>
"""
)


def report(run: Opened, out: str | Path | None = None) -> Path:
    """Write one page on a run, readable anywhere without a network.

    It has what moves of the story (`Story.live`), and what is known of the run: its settings,
    metrics, figures, predictive checks and calibration; figures are drawn if they were not.
    Commands that would add a part are named where it is missing.

    Args:
        run: The run.
        out: The page's path; ``report.html`` in the run's folder if not given. With one, nothing
            is written into that folder.

    Returns:
        The page's path.

    Raises:
        UserError: if something in the run's folder is damaged, or the page cannot be written.
    """
    path = run.path / "report.html" if out is None else Path(out)
    check_writable(path.parent, "give another --out")
    # What there is must be readable before pictures are drawn.
    metrics, checks = _metrics(run), _checks(run)
    figures = run.folder.figures_path
    with TemporaryDirectory() as aside:
        if not (figures / "history.png").exists():
            figures = figures if out is None else Path(aside)
            run.plot(figures)
        pictures = _pictures(figures)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _page(run, metrics, pictures, checks))
    return path


def _page(run: Opened, metrics: str, pictures: str, checks: str) -> str:
    config, settings = run.config, []
    for name in ("settings", "training", "versions"):
        table = _table((name, "value"), config.get(name, {}).items())
        settings.append(f"<details><summary>{name.capitalize()}</summary>{table}</details>")
    sections = {
        **_live(run),
        "Model": _graph(run),
        "Metrics": metrics,
        "Figures": pictures,
        "Predictive checks": checks,
        "How it was trained": "".join(settings),
    }
    lead = (
        f"Recipe {config['recipe']}, guide {config['guide']}, data {run.told_data}, "
        f"seed {config['seed']}; {summary(run.folder.read_history()[-1])}."
    )
    return PAGE.substitute(
        title=escape(f"{config['recipe']}: {run.training_path.name}"),
        lead=escape(lead),
        body="\n".join(f"<h2>{title}</h2>\n{content}" for title, content in sections.items()),
    )


def _live(run: Opened) -> dict[str, str]:
    """The part that moves, under its title; nothing where the story declares none."""
    parts, device = run.parts, run.parts.device
    # Constants of a page are read off the CPU.
    parts.to("cpu")
    try:
        with local_parameters(parts.model, parts.guide), evaluation_mode(parts.model, parts.guide):
            live = run.story.live(parts)
            return {} if live is None else {"Live": live_section(live)}
    except Unsupported as error:
        reason = escape(str(error).splitlines()[0])
        return {"Live": f"<p>This run has no live part: {reason}.</p>"}
    finally:
        parts.to(device)


def _metrics(run: Opened) -> str:
    if not run.metrics:
        return _missing("evaluate", run)
    text = "Log-probabilities are per test point, larger is better; ± is one standard error."
    return f"<p>{text}</p>" + _table(("metric", "value", "unit"), metric_rows(run.metrics))


def _graph(run: Opened) -> str:
    batch = run.parts.first_batch("test", size=GRAPH_POINTS)
    graph = model_graph(run.parts.model, *batch)
    return (
        f"<figure>{graph}<figcaption>The model: observed sites are grey, and those that "
        "are computed of others have a dashed outline.</figcaption></figure>"
    )


def _checks(run: Opened) -> str:
    path = run.path / "checks" / "p_values.json"
    if not path.exists():
        return _missing("check", run)
    try:
        found = json.loads(path.read_text())
        images, draws = found["images"], int(found["draws"])
        rows = [Row(**row).as_text(draws) for row in found["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: check the run again, or delete it.") from error
    text = (
        f"<p>{images} test points, {draws} replicates of each. Replicates given "
        "an image are optimistic: its code was inferred from it. What was hidden from the guide "
        f"and the population are not. {floor_in_words(draws)}</p>"
    )
    return text + _table(HEADS, rows) + _pictures(path.parent)


def _missing(command: str, run: Opened) -> str:
    data = run.folder.data
    words = f"pyro-latents {command} {run.training_path}"
    if data == IN_MEMORY:
        words = f"run.{command}()"
    elif data is not None:
        words += f" --data {data}"
    return f"<p>Not there yet: <code>{escape(words)}</code></p>"


def _pictures(folder: Path) -> str:
    found = []
    order = {name: place for place, name in enumerate(CAPTIONS)}
    paths = sorted(folder.glob("*.png"), key=lambda p: (order.get(p.stem, len(order)), p.stem))
    for path in paths:
        content = base64.b64encode(path.read_bytes()).decode()
        caption = escape(CAPTIONS.get(path.stem, path.stem.replace("_", " ").replace("-", " ")))
        found.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{content}">'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    return "".join(found)


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:g}</td>'
    text = "" if value is None else str(value).replace("<= ", "\u2264 ")
    kind = ' class="short"' if len(text) <= SHORT else ""
    return f"<td{kind}>{escape(text)}</td>"
