"""What the fields of dataclasses of options hold: checked in Python, where nothing parses them."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from pyro_latents.errors import UserError
from pyro_latents.text import did_you_mean

# Each kind of field: what it is called, and what passes for it. A truth value is no number.
KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", lambda value: isinstance(value, Integral) and _is_number(value)),
    float: ("a number", lambda value: isinstance(value, Real) and _is_number(value)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("a word", lambda value: isinstance(value, str)),
    tuple: ("several values", lambda value: isinstance(value, tuple | list)),
}
# Sizes and counts are 64-bit numbers in torch.
TOO_LARGE = 2**63


def check_fields(options: Any) -> None:
    """See that each field is of its kind, finite, and one of its choices.

    Args:
        options: A dataclass whose fields are named as options of the command line.

    Raises:
        UserError: if not; the message has the near names of a choice.
    """
    hints = get_type_hints(type(options))
    for name, value in vars(options).items():
        option, hint = f"--{name.replace('_', '-')}", hints[name]
        kinds = get_args(hint)
        if NoneType in kinds:
            if value is None:
                continue
            hint = next(kind for kind in kinds if kind is not NoneType)
        origin = get_origin(hint)
        if origin is Literal:
            _check_choice(option, value, get_args(hint))
            continue
        _check_kind(option, value, origin or hint)
        if origin is tuple:
            for part in value:
                _check_kind(option, part, get_args(hint)[0])


def plain(value: Any) -> Any:
    """Return numpy's numbers as those of Python, which every file format knows."""
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _check_choice(option: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        near = did_you_mean(str(value), [str(choice) for choice in choices])
        raise UserError(f"unknown {option} {value!r}: {near}")


def _check_kind(option: str, value: Any, kind: Any) -> None:
    if kind not in KINDS:
        return
    words, passes = KINDS[kind]
    if not passes(value):
        raise UserError(f"{option} must be {words}; got {value!r}.")
    if kind in (int, float) and not math.isfinite(value):
        raise UserError(f"{option} must be finite; got {value}.")
    if kind is int and abs(value) >= TOO_LARGE:
        raise UserError(f"{option} is too large: {value}.")


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool)
