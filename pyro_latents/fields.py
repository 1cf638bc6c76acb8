"""What the fields of dataclasses of options hold: checked in Python, where nothing parses them."""

from __future__ import annotations

import math
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from pyro_latents.errors import UserError
from pyro_latents.text import did_you_mean

# Each kind of field: what it is called, and what passes for it.
KINDS: dict[Any, tuple[str, Any]] = {
    int: ("a whole number", Integral),
    float: ("a number", Real),
    bool: ("true or false", bool),
    str: ("a word", str),
    tuple: ("several values", (tuple, list)),
}
# Sizes and counts are 64-bit numbers in torch.
TOO_LARGE = 2**63

# Which numbers a field takes: what it must, and what passes for that.
Number = TypeVar("Number", int, float)
Positive = Annotated[Number, "be positive", lambda value: value > 0]
NotNegative = Annotated[Number, "not be negative", lambda value: value >= 0]
Share = Annotated[Number, "be at least 0 and below 1", lambda value: 0 <= value < 1]


def check_fields(options: Any) -> None:
    """See that each field of a dataclass is of its kind, finite, in its range, and a choice.

    Raises:
        UserError: if not; it names the option of the command line, and the near choices.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for name, value in vars(options).items():
        option, hint = f"--{name.replace('_', '-')}", hints[name]
        if NoneType in get_args(hint):
            if value is None:
                continue
            hint = next(kind for kind in get_args(hint) if kind is not NoneType)
        origin, kinds = get_origin(hint), get_args(hint)
        if origin is Literal:
            if value not in kinds:
                near = did_you_mean(str(value), [str(kind) for kind in kinds])
                raise UserError(f"unknown {option} {value!r}: {near}")
        elif origin is Annotated:
            kind, words, holds = kinds
            _check_kind(option, value, kind)
            if not holds(value):
                raise UserError(f"{option} must {words}; got {value}.")
        else:
            _check_kind(option, value, origin or hint)
            for part in value if origin is tuple else ():
                _check_kind(option, part, kinds[0])


def plain(value: Any) -> Any:
    """Return numpy's numbers as those of Python, which every file format knows."""
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _check_kind(option: str, value: Any, kind: Any) -> None:
    if kind not in KINDS:
        return
    words, types = KINDS[kind]
    # A truth value is no number, although Python counts it among them.
    if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{option} must be {words}; got {value!r}.")
    if kind in (int, float) and not math.isfinite(value):
        raise UserError(f"{option} must be finite; got {value}.")
    if kind is int and abs(value) >= TOO_LARGE:
        raise UserError(f"{option} is too large: {value}.")
