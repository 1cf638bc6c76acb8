"""The live part of a page: its programs, the numbers they need, and what checks them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from pyro_latents.live.declared import Bars, Choice, Control, Images, Live, Picture, Shown, Sliders
from pyro_latents.live.lowering import Lowered, noise_at_its_centre
from pyro_latents.live.numbers import Numbers
from pyro_latents.live.program import Program, Unsupported

# In this order: each uses those before it.
SCRIPTS = (
    *("operations", "programs", "elements", "drawing", "controls", "shows"),
    *("check", "page"),
)
# How far a page may be from torch, in pixels or relative to values beyond one; how far weights of
# 16 bits may take it; and how far what is traced may be from what it was traced of.
TOLERANCE, OF_HALF, OF_TRACE = 1e-3, 5e-4, 1e-4
# Arguments that the length of weights is chosen with, and those of them that the page checks.
PROBES, CHECKED = 20, 3
# Of the drawing of a plane, in pixels.
PLANE = 480

Values = dict[str, Tensor]
# Arguments of a step, and what torch makes of them.
Known = tuple[Sequence[Tensor], Sequence[Tensor]]


def live_section(live: Live) -> str:
    """Return the live part of a page, as HTML that needs nothing else.

    Weights have 16 bits if that changes nothing that can be seen, else 32. As the page opens it
    checks its results against torch's: the largest difference is the attribute
    ``data-difference`` of the element ``live``, and ``data-agrees`` says whether it is small.

    Raises:
        Unsupported: if a step does what a page cannot do.
    """
    content = json.dumps(_content(live), separators=(",", ":")).replace("<", "\\u003c")
    script = "\n".join(_file(f"{name}.js") for name in SCRIPTS)
    return (
        f"<style>\n{_file('live.css')}</style>\n"
        f'<section id="live" aria-label="live part"><p>{escape(live.text)}</p>'
        "<noscript><p>It needs JavaScript, which is off.</p></noscript></section>\n"
        f'<script type="application/json" id="live-data">{content}</script>\n'
        f'<script>\n"use strict";\n(() => {{\n{script}}})();\n</script>'
    )


def _file(name: str) -> str:
    return (files("pyro_latents.live") / name).read_text(encoding="utf-8")


def _content(live: Live) -> dict[str, Any]:
    """What the page reads."""
    values = {control.name: _start(control) for control in live.controls}
    steps = []
    for step in live.steps:
        lowered = Lowered(step.function, *(values[name] for name in step.takes))
        steps.append((step, lowered))
        values |= _results(step, values)
    probes = [_probe(live, number) for number in range(PROBES)]
    numbers, programs, checks = Numbers(), [], []
    for number, (step, lowered) in enumerate(steps):
        known = [
            ([before[name] for name in step.takes], [after[number][name] for name in step.gives])
            for before, after in probes
        ]
        names = {"takes": list(step.takes), "gives": list(step.gives)}
        programs.append({**names, **_program(lowered, known, numbers).as_json()})
        for pair in known[:CHECKED]:
            given, expected = ([numbers.add(value) for value in values] for values in pair)
            checks.append({"step": number, "given": given, "expected": expected})
    return {
        "tolerance": TOLERANCE,
        "controls": [_control(control, numbers) for control in live.controls],
        "steps": programs,
        "shows": [_shown(shown, values[shown.name], numbers) for shown in live.shows],
        "checks": checks,
        "numbers": numbers.as_json(),
    }


def _program(lowered: Lowered, known: Sequence[Known], numbers: Numbers) -> Program:
    """Return a program with the shortest weights that do; its results are known at some places."""
    for half, most in ((True, OF_HALF), (False, OF_TRACE)):
        difference = 0.0
        for given, expected in known:
            _, found = lowered.program(Numbers(), *given, half=half)
            difference = max(difference, _difference(found, expected))
        if difference < most:
            return lowered.program(numbers, *known[0][0], half=half)[0]
    raise Unsupported(f"a step gives other numbers once it is traced, by {difference:.1e}")


def _start(control: Control) -> Tensor:
    """What a control is at before anyone moves it."""
    if isinstance(control, Picture):
        return control.examples[:1].float()
    if isinstance(control, Choice):
        return torch.eye(len(control.options))[:1]
    return _start_of(control)[None]


def _start_of(sliders: Sliders) -> Tensor:
    return torch.zeros_like(sliders.low) if sliders.start is None else sliders.start


def _results(step: Any, values: Mapping[str, Tensor]) -> Values:
    """What torch makes of values."""
    with noise_at_its_centre():
        found = step.function(*(values[name] for name in step.takes))
    found = found if isinstance(found, tuple) else (found,)
    return {
        name: value.reshape(value.shape).contiguous()
        for name, value in zip(step.gives, found, strict=True)
    }


def _probe(live: Live, number: int) -> tuple[Values, list[Values]]:
    """Values of the controls, and what torch makes of them, step by step.

    A step that gives the value of a control does not move it here: both are checked.
    """
    values = {}
    with torch.random.fork_rng():
        torch.manual_seed(number)
        for control in live.controls:
            values[control.name] = _elsewhere(control, number)
    results = []
    for step in live.steps:
        results.append(_results(step, values))
        values = {**results[-1], **values}
    return values, results


def _elsewhere(control: Control, number: int) -> Tensor:
    """One of the values that a control may have."""
    if isinstance(control, Picture):
        return control.examples[number % len(control.examples)][None].float()
    if isinstance(control, Choice):
        return torch.eye(len(control.options))[number % len(control.options)][None]
    return (control.low + torch.rand_like(control.low) * (control.high - control.low))[None]


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to values beyond one; infinite where one is no number."""
    differences = [0.0]
    for a, b in zip(found, expected, strict=True):
        apart = (a - b.reshape(-1)).abs().amax() / b.abs().amax().clamp_min(1.0)
        differences.append(float(apart) if bool(apart.isfinite()) else float("inf"))
    return max(differences)


def _control(control: Control, numbers: Numbers) -> dict[str, Any]:
    kind = {"kind": type(control).__name__.lower(), "name": control.name, "title": control.title}
    if isinstance(control, Choice):
        return {**kind, "options": list(control.options)}
    if isinstance(control, Picture):
        count = len(control.examples)
        captions = list(control.captions) or [f"example {i + 1}" for i in range(count)]
        shape = list(control.examples.shape[1:])
        examples = numbers.add(control.examples)
        return {**kind, "shape": shape, "captions": captions, "examples": examples}
    count = len(control.low)
    ends = {"low": control.low, "high": control.high, "start": _start_of(control)}
    return {
        **kind,
        **{name: numbers.add(value) for name, value in ends.items()},
        "labels": list(control.labels) or [f"{control.name}{i + 1}" for i in range(count)],
        "rest": control.rest,
        "normal": control.is_normal,
        "shown": list(range(count) if control.shown is None else control.shown),
    }


def _shown(shown: Shown, value: Tensor, numbers: Numbers) -> dict[str, Any]:
    kind = {"kind": type(shown).__name__.lower(), "name": shown.name, "title": shown.title}
    if isinstance(shown, Images):
        shape = list(value.shape if value.dim() == 5 else (1, *value.shape))
        return {**kind, "shape": shape, "rows": [*shown.rows], "captions": [*shown.captions]}
    if isinstance(shown, Bars):
        return {**kind, "options": list(shown.options)}
    colours = None if shown.colours is None else numbers.add(shown.colours)
    background = numbers.add(shown.background)
    return {**kind, "background": background, "colours": colours, "side": PLANE}
