"""The exception of this package that is meant for the person at the keyboard."""

from numbers import Integral
from typing import Any


class UserError(ValueError):
    """A mistake the user can mend.

    The message is one line: what is wrong, and what to do about it. The command line prints it
    without a traceback and exits with a non-zero status; in Python it is a ``ValueError``.
    """


class NotFiniteError(UserError):
    """A training that cannot go on, as its loss is not finite."""


def check_seed(seed: int) -> None:
    """Raise a `UserError` unless torch takes a seed, and the next one, which the guide has."""
    if not (isinstance(seed, Integral) and 0 <= seed < 2**63 - 1):
        raise UserError(f"--seed must be a whole number from 0 to 2**63 - 2; got {seed!r}.")


def check_counts(least: int, **options: Any) -> None:
    """Raise a `UserError` unless options, by name, are whole numbers from one on; None passes."""
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        # Written so that what is not a number fails.
        if value is not None and not value >= least:
            raise UserError(f"{option} must be at least {least}; got {value}.")
        if value is not None and not isinstance(value, Integral):
            raise UserError(f"{option} must be a whole number; got {value}.")
