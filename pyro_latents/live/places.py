"""Operations that move numbers about, and compute none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pyro_latents.live.program import Program, Table, Unsupported, Value

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
PLACES = Table()


def strided(program: Program, x: Value, view: Tensor) -> Value:
    """Return a value as a view of it, which is one of an array in order."""
    offset = int(view.storage_offset())
    if view.numel() == x.size and view.is_contiguous() and not offset:
        return x.reshaped(view.shape)
    places = {"lengths": list(view.shape), "strides": list(view.stride()), "offset": offset}
    return program.add("view", [x], view.shape, **places)


@PLACES.of(*SAME)
def _same(program: Program, target: Any, found: Tensor, x: Value, *rest: Any, **how: Any) -> Value:
    return x.reshaped(found.shape)


@PLACES.of(*VIEWS)
def _view(program: Program, target: Any, found: Any, x: Value, *rest: Any, **how: Any) -> Any:
    # torch says itself where the numbers of a view lie in an array in order.
    views = target(torch.empty(x.shape), *rest, **how)
    if isinstance(views, Tensor):
        return strided(program, x, views)
    return [strided(program, x, view) for view in views]


@PLACES.of(*MOVES)
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


@PLACES.of(*SCATTERS)
def _scatter(
    program: Program, target: Any, found: Tensor, x: Value, over: Value, *rest: Any, **how: Any
) -> Value:
    both = program.add("join", [x, over], [x.size + over.size], outer=1, inner=[x.size, over.size])
    written = torch.arange(x.size + 1, both.size + 1, dtype=torch.float64).reshape(over.shape)

    def move(places: Tensor) -> Tensor:
        return target(places[: x.size].reshape(x.shape), written, *rest, **how)

    return _moved(program, both, move)


@PLACES.of()
def _cat(
    program: Program, target: Any, found: Tensor, parts: Sequence[Value], dim: int = 0
) -> Value:
    # torch lets empty ones of another number of dimensions pass.
    parts = [part for part in parts if part.size]
    dim %= found.dim()
    inner = [prod(part.shape[dim:]) for part in parts]
    return program.add("join", parts, found.shape, outer=prod(found.shape[:dim]), inner=inner)


@PLACES.of()
def _stack(
    program: Program, target: Any, found: Tensor, parts: Sequence[Value], dim: int = 0
) -> Value:
    dim %= found.dim()
    apart = [part.reshaped((*part.shape[:dim], 1, *part.shape[dim:])) for part in parts]
    return _cat(program, target, found, apart, dim)


@PLACES.of("index")
def _index(
    program: Program, target: Any, found: Tensor, x: Value, indices: Sequence[Value | None]
) -> Value:
    if len([i for i in indices if i is not None]) != 1 or indices[0] is None:
        raise Unsupported("a page picks by one index along the first dimension alone")
    return _rows(program, target, found, x, 0, indices[0])


@PLACES.of("index_select")
def _rows(program: Program, target: Any, found: Tensor, x: Value, dim: int, index: Value) -> Value:
    if dim:
        raise Unsupported("a page picks along the first dimension alone")
    return program.add("rows", [x, index], found.shape, width=prod(x.shape[1:]), count=x.shape[0])
