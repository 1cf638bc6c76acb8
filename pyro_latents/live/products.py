"""Operations that are sums of products: of matrices, of filters, and between pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from pyro_latents.live.pointwise import pointwise
from pyro_latents.live.program import Program, Table, Unsupported, Value

PRODUCTS = Table()


@PRODUCTS.of("mm", "bmm", "mv", "dot")
def _product(program: Program, target: Any, found: Tensor, x: Value, y: Value) -> Value:
    rows = x.shape[-2] if len(x.shape) > 1 else 1
    columns = y.shape[-1] if len(y.shape) > 1 else 1
    inner, batch = x.shape[-1], x.shape[0] if len(x.shape) == 3 else 1
    sizes = {"batch": batch, "rows": rows, "inner": inner, "columns": columns}
    return program.add("product", [x, y], found.shape, **sizes)


@PRODUCTS.of("addmm", "baddbmm")
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
        made = pointwise(program, "mul", found.shape, made, alpha)
    if beta != 1:
        bias = pointwise(program, "mul", bias.shape, bias, beta)
    return pointwise(program, "add", found.shape, made, bias)


@PRODUCTS.of()
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
    return pointwise(program, "add", found.shape, made, bias)


@PRODUCTS.of()
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


@PRODUCTS.of()
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


@PRODUCTS.of()
def _linalg_matrix_exp(program: Program, target: Any, found: Tensor, x: Value) -> Value:
    return program.add("exponential", [x], found.shape, side=x.shape[-1])
