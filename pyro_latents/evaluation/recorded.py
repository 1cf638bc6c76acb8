"""A function of one tensor as a graph, whose constant part is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[[Tensor], Sequence[Tensor]]
# Of the recorded function against the one that is recorded, relative to the largest value.
TOLERANCE = 1e-4


def recorded(function: Function, example: Tensor) -> Function:
    """Return a function as a graph of tensor operations without what surrounds them.

    What does not depend on the argument, such as an encoder's features of data that stay, is
    computed here and never again. A function that looks at values, draws, or gives other values
    as a graph is returned as it is.

    Args:
        function: Of a tensor of one shape; it may take gradients.
        example: An argument to record it with.
    """
    try:
        with pyro.validation_enabled(False):
            graph = _folded(make_fx(lambda at: function(at))(example))
        # At another place, where what should have been computed anew is told from what was.
        found, expected = graph(example.flip(0)), function(example.flip(0))
    except Exception:  # whatever a program does that has no place in a graph
        return function
    return graph if all(map(_is_close, found, expected)) else function


class _Folding(Interpreter):
    """Computes every node that the argument has no part in, and leaves the others."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.constants: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        """Compute the node if all that it reads is known."""
        if n.op in ("placeholder", "output"):
            return None
        if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ()):
            raise ValueError(f"{n.target} draws")
        if any(read not in self.constants for read in n.all_input_nodes):
            if _changed(n) in self.constants:
                raise ValueError(f"{n.target} writes to what is computed once")
            return None
        self.constants[n] = super().run_node(n)
        return self.constants[n]


@torch.no_grad()
def _folded(graph: GraphModule) -> Function:
    folding = _Folding(graph)
    folding.run(None)
    for number, (node, value) in enumerate(folding.constants.items()):
        if node.op == "get_attr" or all(user in folding.constants for user in node.users):
            continue
        name = f"_folded_{number}"
        graph.register_buffer(name, value)
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code(
        lambda node: node.op in ("placeholder", "output") or _changed(node) is not None
    )
    graph.recompile()
    return torch.no_grad()(graph)


def _changed(node: Node) -> Node | None:
    """What an operation in place writes to, None for other operations."""
    schema = getattr(node.target, "_schema", None)
    return node.all_input_nodes[0] if schema is not None and schema.is_mutable else None


def _is_close(found: Tensor, expected: Tensor) -> bool:
    largest = expected.abs().amax() if expected.numel() else expected.new_zeros(())
    return bool(((found - expected).abs() <= TOLERANCE * (1 + largest)).all())
