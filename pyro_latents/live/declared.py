"""What a story's live part is made of: controls, steps and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sliders:
    """Numbers, each with a slider: a value of shape `1 size`.

    Args:
        name: Of the value, for steps.
        title: What they are, in words.
        low: Where each slider ends at the left, of shape `size`.
        high: Where it ends at the right.
        start: The values at first, and those that ``rest`` goes back to; zeros if not given.
        labels: What each is called; ``name`` and a number if not given.
        rest: What a button says that goes back to the start; no button if empty.
        shown: The sliders that are seen at once, by their numbers; others unfold. All by default.
        is_normal: Whether their prior is standard normal: a button draws them from it.
    """

    name: str
    title: str
    low: Tensor
    high: Tensor
    start: Tensor | None = None
    labels: Sequence[str] = ()
    rest: str = "all to zero"
    shown: Sequence[int] | None = None
    is_normal: bool = False


@dataclass(frozen=True, eq=False)
class Choice:
    """One of some things: a value of shape `1 options`, one at the chosen place and else zero.

    Args:
        name: Of the value, for steps.
        title: What is chosen, in words.
        options: What each is called.
    """

    name: str
    title: str
    options: Sequence[str]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that is drawn with a pen or picked from some: `1 channels height width`.

    Args:
        name: Of the value, for steps.
        title: What it is, in words.
        examples: Images in [0, 1] to pick from, `n channels height width`; the first is there at
            the start.
        captions: What each of them is called.
    """

    name: str
    title: str
    examples: Tensor
    captions: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Step:
    """Values that follow from others, whenever one of these changes.

    Args:
        function: Of tensors, one for each of ``takes``, to one tensor for each of ``gives`` (a
            tuple if there are several). It is traced once: what it does may not depend on values.
        takes: Names of values: of controls, or given by steps before.
        gives: Names of values. Those of controls move the control: an encoder moves sliders.
    """

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    takes: Sequence[str]
    gives: Sequence[str]


@dataclass(frozen=True, eq=False)
class Images:
    """Images in [0, 1], of shape `rows columns channels height width` or without rows.

    Args:
        name: Of the value.
        title: What they are, in words.
        rows: What each row is called; none if empty.
        captions: What is under each column; nothing if empty.
    """

    name: str
    title: str
    rows: Sequence[str] = ()
    captions: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Bars:
    """Numbers in [0, 1] as bars, of shape `1 options`.

    Args:
        name: Of the value.
        title: What they are, in words.
        options: What each is called.
    """

    name: str
    title: str
    options: Sequence[str]


@dataclass(frozen=True, eq=False)
class Plane:
    """Points in a plane, those of a value over a background that stays.

    Args:
        name: Of the value, of shape `n 2`: a path, whose last point is marked.
        title: What they are, in words.
        background: Points that stay, of shape `m 2`.
        colours: A number in [0, 1] for each of them, of shape `m`; None for one colour.
    """

    name: str
    title: str
    background: Tensor
    colours: Tensor | None = None


Control = Sliders | Choice | Picture
Shown = Images | Bars | Plane


@dataclass(frozen=True, eq=False)
class Live:
    """The live part of a story's report.

    Args:
        text: What there is to do, and what is seen then; a sentence or two.
        controls: What can be moved.
        steps: What follows, in order.
        shows: What is seen.

    Raises:
        ValueError: if a step takes, or something shows, a value that is not there by then.
    """

    text: str
    controls: Sequence[Control]
    steps: Sequence[Step]
    shows: Sequence[Shown]

    def __post_init__(self) -> None:
        known = {control.name for control in self.controls}
        for step in self.steps:
            for name in step.takes:
                if name not in known:
                    raise ValueError(f"a live step takes {name!r}: no control or step before is.")
            known |= set(step.gives)
        for shown in self.shows:
            if shown.name not in known:
                raise ValueError(f"a live part shows {shown.name!r}, which no step gives.")
