"""From functions of tensors to operations of a page.

A function is traced, and each tensor operation becomes one of the few that ``operations.js`` has.
What does not depend on the arguments is computed here, once, and noise is at its centre.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch.func import functionalize
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pyro_latents.live.numbers import Numbers
from pyro_latents.live.operations import OPERATIONS
from pyro_latents.live.program import Program, Unsupported, Value

aten = torch.ops.aten
# Those that are made of others which the page has.
DECOMPOSED = (
    aten._softmax,
    aten._log_softmax,
    aten.addcmul,
    aten.binary_cross_entropy_with_logits,
    aten.elu,
    aten.gelu,
    aten.hardtanh,
    aten.leaky_relu,
    aten.linalg_vector_norm,
    aten.logit,
    aten.native_batch_norm,
    aten.silu,
    aten.softplus,
    aten.square,
)
# Weights that are kept in 16 bits have as many numbers.
SMALLEST_HALF = 1_000
# Of their arguments they take the shape alone.
SHAPED = (
    *("empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like"),
    *("rand_like", "randn_like", "zeros_like"),
)


class Lowered:
    """A traced function, and its program.

    Args:
        function: Of tensors, to a tensor or a tuple of them.
        *examples: Arguments of the shapes that it will always have.

    Raises:
        Unsupported: if it cannot be traced.
    """

    def __init__(self, function: Callable[..., Any], *examples: Tensor) -> None:
        def results(*arguments: Tensor) -> tuple[Tensor, ...]:
            found = function(*arguments)
            return found if isinstance(found, tuple) else (found,)

        table: Any = get_decompositions(list(DECOMPOSED))
        try:
            with torch.no_grad(), pyro.validation_enabled(False):
                graph = make_fx(results)(*examples)
                # Writing in place comes after functions with a gradient of their own, which
                # `functionalize` does not take.
                pure = functionalize(graph, remove="mutations")
                self.graph = make_fx(pure, decomposition_table=table)(*examples)
        except Exception as error:  # whatever a program does that has no place in a graph
            said = str(error).strip() or repr(error)
            raise Unsupported(said.splitlines()[0]) from error
        # Checks of values make nothing, and a page has none.
        self.graph.graph.eliminate_dead_code(lambda n: n.op in ("placeholder", "output"))

    def program(
        self, numbers: Numbers, *arguments: Tensor, half: bool
    ) -> tuple[Program, list[Tensor]]:
        """Return its program, and what that makes of arguments with its constants as kept.

        Args:
            numbers: Where constants are kept.
            *arguments: Those of the function.
            half: Whether weights are kept in 16 bits.

        Raises:
            Unsupported: if it has an operation that a page has not.
        """
        lowering = _Lowering(self.graph, Program(numbers, len(arguments)), half=half)
        with torch.no_grad():
            found = lowering.run(*arguments)
        return lowering.program, [value.reshape(-1) for value in found]


class _Lowering(Interpreter):
    """Runs a graph, and writes down what its arguments have a part in."""

    def __init__(self, graph: GraphModule, program: Program, *, half: bool) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.program = program
        self.half = half
        # What each node makes, where arguments have a part in it: a value, or a list of them.
        self.written: dict[Node, Any] = {}
        self.weights: set[Node] = set()

    def run_node(self, n: Node) -> Any:
        """Compute a node; write it down unless it is a constant."""
        if n.op == "placeholder":
            value = super().run_node(n).contiguous()
            self.written[n] = Value(len(self.written), tuple(value.shape))
            return value
        if n.op == "output":
            self._finish(n.args[0])
            return super().run_node(n)
        read = any(read in self.written for read in n.all_input_nodes)
        if not read or _name(n.target) in SHAPED:
            return self._constant(n)
        if n.target is operator.getitem:
            self.written[n] = self.written[n.args[0]][n.args[1]]  # type: ignore[index]
            return super().run_node(n)
        args, kwargs = map_arg((n.args, n.kwargs), self._as_computed)
        target: Any = n.target
        found = target(*args, **kwargs)
        operation = OPERATIONS.get(_name(target))
        if operation is None:
            raise Unsupported(f"a page has no {_name(target)}")
        args, kwargs = map_arg((n.args, n.kwargs), self._as_written)
        try:
            signature(operation).bind(self.program, target, found, *args, **kwargs)
        except TypeError as error:
            raise Unsupported(f"a page has no {_name(target)} with these options") from error
        self.written[n] = operation(self.program, target, found, *args, **kwargs)
        # In the order of the page's arrays, whatever torch's layout.
        return tree_map_only(Tensor, Tensor.contiguous, found)

    def _constant(self, n: Node) -> Any:
        value: Any = super().run_node(n)
        if n.op == "get_attr" and isinstance(value, nn.Parameter):
            self.weights.add(n)
        if any(read in self.weights for read in n.all_input_nodes):
            self.weights.add(n)
        # Neither noise nor what was in memory before.
        draws = torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())
        return torch.zeros_like(value) if draws or "empty" in _name(n.target) else value

    def _as_computed(self, n: Node) -> Any:
        value = self.env[n]
        if n in self.written or not isinstance(value, Tensor):
            return value
        return value.half().to(value.dtype) if self._is_half(n) else value

    def _as_written(self, n: Node) -> Any:
        if n in self.written:
            return self.written[n]
        value = self.env[n]
        if not isinstance(value, Tensor):
            return value
        return self.program.constant(value, half=self._is_half(n))

    def _is_half(self, n: Node) -> bool:
        """Whether a constant is kept in 16 bits; of a bias there is little to save."""
        return self.half and n in self.weights and self.env[n].numel() >= SMALLEST_HALF

    def _finish(self, results: Any) -> None:
        self.program.results = [self._as_written(result).place for result in results]


def _name(target: Any) -> str:
    """What an operation is called, without its overload."""
    return str(getattr(target, "overloadpacket", target)).removeprefix("aten.")


class _AtCentre(TorchDispatchMode):
    """Has zeros in the place of noise."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            return found.zero_()
        return found


@contextmanager
def noise_at_its_centre() -> Any:
    """Run functions as their programs do: without noise, and with no check of values."""
    with torch.no_grad(), pyro.validation_enabled(False), _AtCentre():
        yield
