"""A program of a page: operations on flat arrays of numbers, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor

from pyro_latents.live.numbers import Numbers


class Unsupported(Exception):
    """A function does what a page cannot do."""


class Table(dict[str, Callable[..., Any]]):
    """How operations of torch, by their names, are written as operations of a page.

    Each is a function of the program, torch's operation, what that has made, and its arguments,
    where tensors are values of the program; it returns the value of the result, or a list of them.
    """

    def of(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter a function under names, or under its own."""

        def enter(function: Callable[..., Any]) -> Callable[..., Any]:
            self.update(dict.fromkeys(names or (function.__name__.strip("_"),), function))
            return function

        return enter


@dataclass(frozen=True)
class Value:
    """What an operation reads or makes.

    Args:
        place: Which value of the program it is, counted from its arguments on; a constant's number
            is below zero, -1 for the first.
        shape: Its shape, which the page has no need of: there a value is a flat array.
    """

    place: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    def reshaped(self, shape: Sequence[int]) -> Value:
        """Return the same numbers under another shape."""
        return Value(self.place, tuple(shape))


@dataclass
class Program:
    """Operations, in order, with the constants that they read.

    Args:
        numbers: Where constants are kept.
        num_arguments: How many arguments there are.
    """

    numbers: Numbers
    num_arguments: int
    operations: list[dict[str, Any]] = field(default_factory=list)
    results: list[int] = field(default_factory=list)

    def add(
        self, kind: str, inputs: Sequence[Value], shape: Sequence[int], **numbers: Any
    ) -> Value:
        """Add an operation of a kind that the page knows, and return what it makes.

        Args:
            kind: The name of the operation in ``operations.js``.
            inputs: What it reads.
            shape: That of what it makes.
            **numbers: The sizes and choices that it needs.
        """
        read = [value.place for value in inputs]
        operation = {"do": kind, "of": read, "size": prod(shape), **numbers}
        self.operations.append(operation)
        return Value(self.num_arguments + len(self.operations) - 1, tuple(shape))

    def constant(self, value: Tensor, *, half: bool = False) -> Value:
        """Keep a constant, and return it as a value."""
        number = self.numbers.add(value, half=half)
        return Value(-1 - number, tuple(value.shape))

    def as_json(self) -> dict[str, Any]:
        """Return what the page reads."""
        return {"operations": self.operations, "results": self.results}
