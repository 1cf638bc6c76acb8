"""Operations on one number of each argument at a time, and along rows of one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pyro_latents.live.places import strided
from pyro_latents.live.program import Program, Table, Unsupported, Value

Number = bool | int | float
# Those of one argument, and of two, that the page has under the same names.
OF_ONE = (
    *("abs", "cos", "erf", "exp", "expm1", "floor", "log", "log1p", "neg", "reciprocal", "relu"),
    *("rsqrt", "sigmoid", "sign", "sin", "sqrt", "tanh", "logical_not"),
)
OF_TWO = (
    *("add", "atan2", "div", "eq", "ge", "gt", "le", "lt", "maximum", "minimum", "mul", "ne"),
    *("pow", "sub", "logical_and", "logical_or"),
)
REDUCTIONS = ("amax", "amin", "argmax", "argmin", "logsumexp", "mean", "sum")
POINTWISE = Table()


def pointwise(program: Program, name: str, shape: Sequence[int], *args: Value | Number) -> Value:
    """One number of each argument at a time; arguments that are a number are constants."""
    known = [_broadcast(program, x, shape) for x in args]
    values = [x if isinstance(x, Value) else program.constant(torch.tensor([x])) for x in known]
    return program.add("map", values, shape, by=name)


def _broadcast(program: Program, x: Value | Number, shape: Sequence[int]) -> Value | Number:
    if not isinstance(x, Value) or x.shape == tuple(shape) or x.size == 1:
        return x
    if x.size == prod(shape):
        return x.reshaped(shape)
    return strided(program, x, torch.empty(x.shape).expand(*shape))


@POINTWISE.of(*OF_ONE)
def _of_one(program: Program, target: Any, found: Tensor, x: Value) -> Value:
    return pointwise(program, _called(target), found.shape, x)


@POINTWISE.of(*OF_TWO)
def _of_two(
    program: Program, target: Any, found: Tensor, x: Value, y: Any, *, alpha: float = 1
) -> Value:
    if alpha != 1:
        y = pointwise(program, "mul", y.shape, y, alpha) if isinstance(y, Value) else alpha * y
    return pointwise(program, _called(target), found.shape, x, y)


@POINTWISE.of("bitwise_and", "bitwise_not", "bitwise_or")
def _of_truths(program: Program, target: Any, found: Tensor, *args: Value) -> Value:
    if found.dtype is not torch.bool:
        raise Unsupported("a page has no operations on the bits of numbers")
    name = _called(target).replace("bitwise", "logical")
    return pointwise(program, name, found.shape, *args)


@POINTWISE.of()
def _rsub(program: Program, target: Any, found: Tensor, x: Value, y: Any) -> Value:
    return pointwise(program, "sub", found.shape, y, x)


@POINTWISE.of()
def _where(program: Program, target: Any, found: Tensor, *args: Any) -> Value:
    return pointwise(program, "where", found.shape, *args)


@POINTWISE.of()
def _clamp(
    program: Program, target: Any, found: Tensor, x: Value, low: Any = None, high: Any = None
) -> Value:
    if low is not None:
        x = pointwise(program, "maximum", found.shape, x, low)
    return x if high is None else pointwise(program, "minimum", found.shape, x, high)


@POINTWISE.of()
def _clamp_min(program: Program, target: Any, found: Tensor, x: Value, low: Any) -> Value:
    return pointwise(program, "maximum", found.shape, x, low)


@POINTWISE.of()
def _clamp_max(program: Program, target: Any, found: Tensor, x: Value, high: Any) -> Value:
    return pointwise(program, "minimum", found.shape, x, high)


@POINTWISE.of()
def _copy(program: Program, target: Any, found: Tensor, x: Value, over: Any, *rest: Any) -> Value:
    value = _broadcast(program, over, found.shape)
    assert isinstance(value, Value)
    return value


@POINTWISE.of(*REDUCTIONS)
def _reduce(
    program: Program,
    target: Any,
    found: Tensor,
    x: Value,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    **how: Any,
) -> Value:
    count = len(x.shape)
    chosen = [dim] if isinstance(dim, int) else list(dim or range(count))
    gone = sorted(d % count for d in chosen)
    kept = [d for d in range(count) if d not in gone]
    ahead = strided(program, x, torch.empty(x.shape).permute(*kept, *gone))
    inner = prod(x.shape[d] for d in gone)
    return program.add("reduce", [ahead], found.shape, inner=inner, by=_called(target))


def _called(target: Any) -> str:
    return str(target.overloadpacket).removeprefix("aten.")
