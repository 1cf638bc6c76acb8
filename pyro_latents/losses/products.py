"""Products of matrices in captured steps, by the library that is quicker on this processor."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Multiplications from which on a product is worth oneDNN's longer call, some 5 microseconds.
LARGE = 500_000
_aten = torch.ops.aten


@cache
def quicker_products() -> dict[Any, Callable]:
    """What computes products in the place of MKL, by the operation.

    PyTorch leaves products in single precision to MKL, which keeps to the instructions of older
    processors where the processor is not Intel's. oneDNN, which computes the convolutions, and the
    products of code that inductor compiles, has twice its speed on an AMD with AVX-512, and a
    tenth more on one with AVX2.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return {}
    usable = hasattr(torch.ops.mkldnn, "_linear_pointwise") and _is_amd()
    return {_aten.mm.default: _mm, _aten.addmm.default: _addmm} if usable else {}


def _is_amd() -> bool:
    path = Path("/proc/cpuinfo")
    return path.exists() and "AuthenticAMD" in path.read_text()


def _suits(*matrices: Tensor) -> bool:
    a, b = matrices[-2:]
    (rows, inner), columns = a.shape, b.shape[1]
    # A few long sums, such as gradients of small filters, are quicker by MKL.
    wide = rows * inner * columns >= LARGE and rows * columns >= inner
    return wide and all(m.device.type == "cpu" and m.dtype == torch.float32 for m in matrices)


def _linear(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


def _mm(a: Tensor, b: Tensor) -> Any:
    return _linear(a, b, None) if _suits(a, b) else NotImplemented


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    plain = bias.shape == b.shape[1:] and beta == alpha == 1
    return _linear(a, b, bias) if plain and _suits(bias, a, b) else NotImplemented
