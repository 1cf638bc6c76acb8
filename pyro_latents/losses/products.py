"""Products of matrices in captured steps, by the library that is quicker on this processor."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

# Multiplications from which on a product is worth oneDNN's longer call, some 5 microseconds.
LARGE = 500_000
_aten = torch.ops.aten


def quicken_products(graph: GraphModule) -> None:
    """Have oneDNN compute the larger products of a graph, where it is the quicker library.

    PyTorch leaves products in single precision to MKL, which keeps to the instructions of older
    processors where the processor is not Intel's. oneDNN, which computes the convolutions, and the
    products of code that inductor compiles, has twice its speed on an AMD with AVX-512, and a
    tenth more on one with AVX2. They are the same sums, in another order.

    Args:
        graph: By `make_fx`; changed in place.
    """
    if not onednn_is_quicker():
        return
    for node in graph.graph.nodes:
        if node.target is _aten.mm.default and _suits(*node.args):
            a, b = node.args
            _replace(graph, node, a, b, None)
        elif node.target is _aten.addmm.default and not node.kwargs:
            bias, a, b = node.args
            if len(bias.meta["val"].shape) == 1 and _suits(a, b):
                _replace(graph, node, a, b, bias)
    graph.recompile()


@cache
def onednn_is_quicker() -> bool:
    """Whether MKL does not know this processor, and oneDNN can be had in its place."""
    cpus = Path("/proc/cpuinfo")
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and cpus.exists()
        and "AuthenticAMD" in cpus.read_text()
    )


def _suits(*nodes: Node) -> bool:
    a, b = (node.meta["val"] for node in nodes)
    (rows, inner), columns = a.shape, b.shape[1]
    # A few long sums, such as gradients of small filters, are quicker by MKL.
    wide = rows * inner * columns >= LARGE and rows * columns >= inner
    return wide and _is_single(a) and _is_single(b)


def _is_single(value: Tensor) -> bool:
    return value.device.type == "cpu" and value.dtype == torch.float32


def _replace(graph: GraphModule, node: Node, a: Node, b: Node, bias: Any) -> None:
    """Put a linear map in the place of a product; it wants the other factor transposed."""
    with graph.graph.inserting_before(node):
        transposed = graph.graph.call_function(_aten.t.default, (b,))
        linear = torch.ops.mkldnn._linear_pointwise.default
        new = graph.graph.call_function(linear, (a, transposed, bias, "none", [], ""))
    new.meta.update(node.meta)
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)
