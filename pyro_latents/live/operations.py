"""How each of torch's operations is written as operations of a page.

Each function here has the program, torch's operation, what that has made, and its arguments, where
tensors are values of the program; it returns the value of the result, or a list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pyro_latents.live.program import Program, Unsupported, Value

Operation = Callable[..., Any]
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
# They hand on the numbers as they are.
SAME = (
    *("_to_copy", "_unsafe_view", "alias", "clone", "contiguous", "detach", "lift_fresh_copy"),
    *("reshape", "_reshape_alias", "view_copy", "alias_copy"),
)
VIEWS = (
    *("diagonal", "expand", "narrow", "permute", "select", "slice", "split", "split_with_sizes"),
    *("squeeze", "t", "transpose", "unbind", "unflatten", "unfold", "unsqueeze", "view"),
)
# Each number of what they make is one of the argument's, or what is beyond its border.
MOVES = (
    *("constant_pad_nd", "flip", "pixel_shuffle", "reflection_pad1d", "reflection_pad2d"),
    *("repeat", "replication_pad1d", "replication_pad2d", "roll", "upsample_nearest2d"),
)
# They write the numbers of one argument over some of another.
SCATTERS = ("diagonal_scatter", "select_scatter", "slice_scatter")
REDUCTIONS = ("amax", "amin", "argmax", "argmin", "logsumexp", "mean", "sum")
OPERATIONS: dict[str, Operation] = {}


def _operation(*names: str) -> Callable[[Operation], Operation]:
    def add(function: Operation) -> Operation:
        for name in names or (function.__name__.strip("_"),):
            OPERATIONS[name] = function
        return function

    return add


@_operation(*SAME)
def _same(program: Program, target: Any, found: Tensor, x: Value, *rest: Any, **how: Any) -> Value:
    return x.reshaped(found.shape)


@_operation(*VIEWS)
def _view(program: Program, target: Any, found: Any, x: Value, *rest: Any, **how: Any) -> Any:
    # torch says itself where the numbers of a view lie in an array in order.
    views = target(torch.empty(x.shape), *rest, **how)
    if isinstance(views, Tensor):
        return _strided(program, x, views)
    return [_strided(program, x, view) for view in views]


def _strided(program: Program, x: Value, view: Tensor) -> Value:
    offset = int(view.storage_offset())
    if view.numel() == x.size and view.is_contiguous() and not offset:
        return x.reshaped(view.shape)
    places = {"lengths": list(view.shape), "strides": list(view.stride()), "offset": offset}
    return program.add("view", [x], view.shape, **places)


@_operation(*MOVES)
def _move(program: Program, target: Any, found: Tensor, x: Value, *rest: Any, **how: Any) -> Value:
    fill = 0.0
    if target is torch.ops.aten.constant_pad_nd.default:
        fill = float(rest[1]) if len(rest) > 1 else 0.0
        rest = rest[:1]
    return _moved(program, x, lambda places: target(places, *rest, **how), fill)


def _moved(
    program: Program, x: Value, move: Callable[[Tensor], Tensor], fill: float = 0.0
) -> Value:
    """Values by their places: zero is what comes from nowhere."""
    places = torch.arange(1, x.size + 1, dtype=torch.float64).reshape(x.shape)
    moved = move(places)
    index = program.constant(moved - 1)
    return program.add("pick", [x, index], moved.shape, fill=fill)


@_operation(*SCATTERS)
def _scatter(
    program: Program, target: Any, found: Tensor, x: Value, over: Value, *rest: Any, **how: Any
) -> Value:
    both = program.add("join", [x, over], [x.size + over.size], outer=1, inner=[x.size, over.size])
    written = torch.arange(x.size + 1, both.size + 1, dtype=torch.float64).reshape(over.shape)

    def move(places: Tensor) -> Tensor:
        return target(places[: x.size].reshape(x.shape), written, *rest, **how)

    return _moved(program, both, move)


@_operation()
def _copy(program: Program, target: Any, found: Tensor, x: Value, over: Any, *rest: Any) -> Value:
    value = _broadcast(program, over, found.shape)
    assert isinstance(value, Value)
    return value


def _broadcast(program: Program, x: Value | Number, shape: Sequence[int]) -> Value | Number:
    if not isinstance(x, Value) or x.shape == tuple(shape) or x.size == 1:
        return x
    if x.size == prod(shape):
        return x.reshaped(shape)
    return _strided(program, x, torch.empty(x.shape).expand(*shape))


def _pointwise(program: Program, name: str, shape: Sequence[int], *args: Value | Number) -> Value:
    """One number of each argument at a time; arguments that are a number are constants."""
    known = [_broadcast(program, x, shape) for x in args]
    values = [x if isinstance(x, Value) else program.constant(torch.tensor([x])) for x in known]
    return program.add("map", values, shape, by=name)


@_operation(*OF_ONE)
def _of_one(program: Program, target: Any, found: Tensor, x: Value) -> Value:
    return _pointwise(program, _called(target), found.shape, x)


@_operation(*OF_TWO)
def _of_two(
    program: Program, target: Any, found: Tensor, x: Value, y: Any, *, alpha: float = 1
) -> Value:
    if alpha != 1:
        y = _pointwise(program, "mul", y.shape, y, alpha) if isinstance(y, Value) else alpha * y
    return _pointwise(program, _called(target), found.shape, x, y)


@_operation("bitwise_and", "bitwise_not", "bitwise_or")
def _of_truths(program: Program, target: Any, found: Tensor, *args: Value) -> Value:
    if found.dtype is not torch.bool:
        raise Unsupported("a page has no operations on the bits of numbers")
    name = _called(target).replace("bitwise", "logical")
    return _pointwise(program, name, found.shape, *args)


@_operation()
def _rsub(program: Program, target: Any, found: Tensor, x: Value, y: Any) -> Value:
    return _pointwise(program, "sub", found.shape, y, x)


@_operation()
def _where(program: Program, target: Any, found: Tensor, *args: Any) -> Value:
    return _pointwise(program, "where", found.shape, *args)


@_operation()
def _clamp(
    program: Program, target: Any, found: Tensor, x: Value, low: Any = None, high: Any = None
) -> Value:
    if low is not None:
        x = _pointwise(program, "maximum", found.shape, x, low)
    return x if high is None else _pointwise(program, "minimum", found.shape, x, high)


@_operation()
def _clamp_min(program: Program, target: Any, found: Tensor, x: Value, low: Any) -> Value:
    return _pointwise(program, "maximum", found.shape, x, low)


@_operation()
def _clamp_max(program: Program, target: Any, found: Tensor, x: Value, high: Any) -> Value:
    return _pointwise(program, "minimum", found.shape, x, high)


@_operation("mm", "bmm", "mv", "dot")
def _product(program: Program, target: Any, found: Tensor, x: Value, y: Value) -> Value:
    rows = x.shape[-2] if len(x.shape) > 1 else 1
    columns = y.shape[-1] if len(y.shape) > 1 else 1
    inner, batch = x.shape[-1], x.shape[0] if len(x.shape) == 3 else 1
    sizes = {"batch": batch, "rows": rows, "inner": inner, "columns": columns}
    return program.add("product", [x, y], found.shape, **sizes)


@_operation("addmm", "baddbmm")
def _affine(
    program: Program,
    target: Any,
    found: Tensor,
    bias: Value,
    x: Value,
    y: Value,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Value:
    made = _product(program, target, found, x, y)
    if alpha != 1:
        made = _pointwise(program, "mul", found.shape, made, alpha)
    if beta != 1:
        bias = _pointwise(program, "mul", bias.shape, bias, beta)
    return _pointwise(program, "add", found.shape, made, bias)


@_operation()
def _convolution(
    program: Program,
    target: Any,
    found: Tensor,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    one = len(x.shape) == 3  # along a line: an image of one row

    def two(numbers: Sequence[int], ahead: int) -> list[int]:
        return [ahead, *numbers] if one else list(numbers)

    sizes = {
        "given": [x.shape[1], *two(x.shape[2:], 1)],
        "made": [found.shape[1], *two(found.shape[2:], 1)],
        "kernel": two(weight.shape[2:], 1),
        "stride": two(stride, 1),
        "padding": two(padding, 0),
        "dilation": two(dilation, 1),
    }
    kind = "spread" if transposed else "convolve"
    made = program.add(kind, [x, weight], found.shape, batch=x.shape[0], groups=groups, **sizes)
    if bias is None:
        return made
    bias = bias.reshaped((bias.size, *[1] * (len(x.shape) - 2)))
    return _pointwise(program, "add", found.shape, made, bias)


@_operation()
def _col2im(
    program: Program,
    target: Any,
    found: Tensor,
    x: Value,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    across = [
        (length + 2 * p - d * (k - 1) - 1) // s + 1
        for length, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    sizes = {
        "made": [found.numel() // prod(size), *size],
        "given": across,
        "kernel": list(kernel),
        "stride": list(stride),
        "padding": list(padding),
        "dilation": list(dilation),
    }
    return program.add("fold", [x], found.shape, **sizes)


@_operation()
def _grid_sampler_2d(
    program: Program,
    target: Any,
    found: Tensor,
    x: Value,
    grid: Value,
    interpolation: int,
    padding: int,
    align_corners: bool,
) -> Value:
    if interpolation or padding > 1:
        raise Unsupported("a page reads images between pixels bilinearly alone")
    sizes = {"image": list(x.shape), "made": list(grid.shape[1:3])}
    how = {"border": bool(padding), "corners": align_corners}
    return program.add("sample", [x, grid], found.shape, **sizes, **how)


@_operation()
def _linalg_matrix_exp(program: Program, target: Any, found: Tensor, x: Value) -> Value:
    return program.add("exponential", [x], found.shape, side=x.shape[-1])


@_operation()
def _cat(
    program: Program, target: Any, found: Tensor, parts: Sequence[Value], dim: int = 0
) -> Value:
    # torch lets empty ones of another number of dimensions pass.
    parts = [part for part in parts if part.size]
    dim %= found.dim()
    inner = [prod(part.shape[dim:]) for part in parts]
    return program.add("join", parts, found.shape, outer=prod(found.shape[:dim]), inner=inner)


@_operation()
def _stack(
    program: Program, target: Any, found: Tensor, parts: Sequence[Value], dim: int = 0
) -> Value:
    dim %= found.dim()
    apart = [part.reshaped((*part.shape[:dim], 1, *part.shape[dim:])) for part in parts]
    return _cat(program, target, found, apart, dim)


@_operation(*REDUCTIONS)
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
    ahead = _strided(program, x, torch.empty(x.shape).permute(*kept, *gone))
    inner = prod(x.shape[d] for d in gone)
    return program.add("reduce", [ahead], found.shape, inner=inner, by=_called(target))


@_operation("index")
def _index(
    program: Program, target: Any, found: Tensor, x: Value, indices: Sequence[Value | None]
) -> Value:
    if len([i for i in indices if i is not None]) != 1 or indices[0] is None:
        raise Unsupported("a page picks by one index along the first dimension alone")
    return _rows(program, target, found, x, 0, indices[0])


@_operation("index_select")
def _rows(program: Program, target: Any, found: Tensor, x: Value, dim: int, index: Value) -> Value:
    if dim:
        raise Unsupported("a page picks along the first dimension alone")
    return program.add("rows", [x, index], found.shape, width=prod(x.shape[1:]), count=x.shape[0])


def _called(target: Any) -> str:
    return str(target.overloadpacket).removeprefix("aten.")
