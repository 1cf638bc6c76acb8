"""The loss of a batch, its gradient and the update as a graph: captured once, then replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol
from unittest.mock import patch

import pyro
import torch
from pyro.infer import trace_elbo, trace_mean_field_elbo
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten

from pyro_latents.losses.products import quicken_products
from pyro_latents.nets.precision import uncast
from pyro_latents.programs import local_parameters, modules_of

# Of the captured loss and gradient against those of the programs, relative.
TOLERANCE = 1e-5
# What tells of the value of a tensor that was asked for while recording.
_READ = "_local_scalar_dense"


class Update(Protocol):
    """What an optimiser is, or several together."""

    @property
    def param_groups(self) -> Sequence[Mapping[str, Any]]:
        """The learning rate and other numbers of each group of parameters."""
        ...

    @property
    def state(self) -> Mapping[Any, Mapping[str, Any]]:
        """What is kept of each parameter; empty before the first step."""
        ...

    def step(self) -> Any:
        """Change the parameters by their gradients."""
        ...


class captured:
    """``loss(model, guide)``, whose programs run once for each kind of batch.

    At the first batch of its shapes, number formats and modes, loss and gradient are recorded as
    one graph of tensor operations, and compared with those of the programs in that moment. From
    then on the graph is run in the place of guide, model and objective: the same operations on
    the same draws of torch's generators, without Pyro and without autograd. Call ``backward`` on
    what is returned, as on any loss.

    **With an optimiser** a call is a whole step: its update is part of the graph, and what is
    returned has no gradient. Learning rates that change must be tensors. The first batch of an
    optimiser that has taken no step is run by the programs, so that it has a state.

    What a program does with Python's values is done while recording, and never again: numbers
    that change between steps must be tensors that are written to, among the parameters or buffers
    of the programs or the attributes of the objective; what is moved to another device or number
    format is to be captured anew. Programs that look at the value of a
    tensor cannot be captured; they are run as ever, and ``reason`` says why. So are all programs
    where no gradient is wanted.

    Args:
        loss: An objective with ``differentiable_loss``; most of `pyro.infer`'s have it.
        model: The generative model; a module, a method of one, or a function.
        guide: The guide.
        optimizer: What changes the parameters after each gradient; None to leave it to the caller.

    Attributes:
        reason: Why the latest kind of batch was not captured, None if it was.

    Example:
        >>> elbo = captured(TraceAnalytic_ELBO(), model, guide)  # doctest: +SKIP
        >>> elbo(x).backward()  # doctest: +SKIP
        >>> step = captured(TraceAnalytic_ELBO(), model, guide, optimizer)  # doctest: +SKIP
        >>> loss = step(x)  # doctest: +SKIP
    """

    def __init__(
        self, loss: Any, model: Callable, guide: Callable, optimizer: Update | None = None
    ) -> None:
        self.loss = loss
        self.model = model
        self.guide = guide
        self.optimizer = optimizer
        self.reason: str | None = None
        # Of a method, its owner.
        owners = (getattr(program, "__self__", program) for program in (model, guide))
        self._modules = nn.ModuleList(modules_of(*owners))
        self._graphs: dict[Any, _Replayed | None] = {}
        self._known: list[nn.Parameter] = []

    def __call__(self, *batch: Any) -> Tensor:
        """Return the loss of a batch, in nats, as a scalar; with an optimiser, take a step."""
        if not torch.is_grad_enabled():
            return self._run(batch)
        key = self._kind(batch)
        if key not in self._graphs:
            if self.optimizer is not None and not self.optimizer.state:
                return self._step(batch)
            self._graphs[key] = self._capture(batch)
        replayed = self._graphs[key]
        if replayed is None:
            return self._run(batch) if self.optimizer is None else self._step(batch)
        return replayed(batch) if self.optimizer is None else replayed.graph(batch)[0]

    def _run(self, batch: tuple[Any, ...]) -> Tensor:
        with local_parameters(*self._modules):
            return self.loss.differentiable_loss(self.model, self.guide, *batch)

    def _step(self, batch: tuple[Any, ...]) -> Tensor:
        """Take a step by the programs."""
        parameters = self._learned()
        loss, *gradients = self._loss_and_gradient(batch, parameters)
        self._update(parameters, gradients)
        return loss

    def _learned(self) -> list[nn.Parameter]:
        return [p for p in self._modules.parameters() if p.requires_grad]

    def _update(self, parameters: list[nn.Parameter], gradients: list[Tensor | None]) -> None:
        assert self.optimizer is not None
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out(gradient, parameter)
        with uncast(parameters[0]):
            self.optimizer.step()
        for parameter in parameters:
            parameter.grad = None

    def _kind(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a graph holds for: all that is not a value of a tensor."""
        leaves, structure = tree_flatten(batch)
        described = [
            (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        modes = tuple(module.training for module in self._modules)
        if not self._graphs:
            # Programs may make parameters when they first run; later there are none to look for.
            self._known = list(self._modules.parameters())
        learned = tuple(parameter.requires_grad for parameter in self._known)
        formats = self._cast(batch), torch.get_default_dtype()
        return (*described, structure, modes, learned, *formats)

    def _cast(self, batch: tuple[Any, ...]) -> torch.dtype | None:
        """The number format that autocast computes in, None without it."""
        device = next((leaf.device.type for leaf in _tensors(batch)), "cpu")
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def _capture(self, batch: tuple[Any, ...]) -> _Replayed | None:
        """Record the graph; None if it cannot be, or is not what the programs compute."""
        every = self._learned()
        if not every:
            self.reason = "neither program is a module with parameters"
            return None
        with self._undone(), _casts_apart():
            expected = self._loss_and_gradient(batch, every)
            if self.optimizer is not None:
                # It may clip the gradients in place.
                self._update(every, list(expected[1:]))
        gradients = dict(zip(every, expected[1:], strict=True))
        parameters = [p for p in every if gradients[p] is not None]
        others = [p for p in self._modules.parameters() if gradients.get(p) is None]
        updated = [] if self.optimizer is None else _state(self.optimizer)
        state = [*parameters, *others, *self._modules.buffers(), *_read_by(self.loss), *updated]

        def record(*inputs: Tensor) -> tuple[Any, ...]:
            loss, *found = self._loss_and_gradient(batch, parameters)
            if self.optimizer is not None:
                self._update(parameters, found)
            return loss, *found

        try:
            with self._undone(), pyro.validation_enabled(False), _unread():
                graph = make_fx(record)(*_tensors(batch), *state)
            _shorten(graph)
            replayed = _Replayed(graph, parameters, state)
            with self._undone():
                found = replayed.graph(batch)
            self.reason = _difference(found, [e for e in expected if e is not None])
            if any(getattr(graph, node.target).requires_grad for node in _constants(graph)):
                self.reason = "a parameter is in neither module"
            if updated:
                _return_loss_alone(graph)
            # Only now: the last digit of a product decides about units near zero.
            quicken_products(graph)
        except Exception as error:  # whatever a program does that has no place in a graph
            self.reason = _in_words(error)
        return None if self.reason else replayed

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Put back what a run may change: torch's generators, buffers, and what is updated."""
        held: list[Tensor] = list(self._modules.buffers())
        if self.optimizer is not None:
            held += [*self._modules.parameters(), *_state(self.optimizer)]
        before = [value.detach().clone() for value in held]
        try:
            with torch.random.fork_rng():
                yield
        finally:
            with torch.no_grad():
                for value, old in zip(held, before, strict=True):
                    value.copy_(old)

    def _loss_and_gradient(
        self, batch: tuple[Any, ...], parameters: list[nn.Parameter]
    ) -> tuple[Any, ...]:
        loss = self._run(batch)
        with uncast(loss):
            return loss.detach(), *torch.autograd.grad(loss, parameters, allow_unused=True)


class _Replayed:
    """A graph, and what it reads beside the batch."""

    def __init__(self, graph: Any, parameters: list[nn.Parameter], state: list[Tensor]) -> None:
        self.parameters = parameters
        self.state = state
        self._graph = graph

    @torch.no_grad()
    def graph(self, batch: tuple[Any, ...]) -> Sequence[Tensor]:
        """Run the graph; what a forward pass casts is in it."""
        inputs = [*_tensors(batch), *self.state]
        with uncast(inputs[0]):
            return self._graph(*inputs)

    def __call__(self, batch: tuple[Any, ...]) -> Tensor:
        loss: Any = _Replay.apply(self, batch, *self.parameters)
        return loss


class _Replay(torch.autograd.Function):
    """The loss of a graph, with the gradient that the graph has computed beside it."""

    @staticmethod
    def forward(ctx: Any, replayed: _Replayed, batch: Any, *parameters: Tensor) -> Tensor:
        """Run the graph."""
        loss, *ctx.gradients = replayed.graph(batch)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """Return the gradient of the graph, times that of its loss."""
        return None, None, *(part * gradient for part in ctx.gradients)


@contextmanager
def _unread() -> Iterator[None]:
    """Keep Pyro's objectives from looking at their values, as they do to warn of NaN."""
    stand_ins = {"warn_if_nan": lambda *args: None, "torch_item": lambda value: 0.0}
    with ExitStack() as stack:
        for module in (trace_elbo, trace_mean_field_elbo):
            for name, stand_in in stand_ins.items():
                stack.enter_context(patch.object(module, name, stand_in))
        yield


@contextmanager
def _casts_apart() -> Iterator[None]:
    """Cast a parameter at each of its uses, as a graph does, so that gradients add unrounded."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _state(optimizer: Update) -> list[Tensor]:
    """The tensors of an optimiser: its learning rates, and what it keeps of each parameter."""
    held = [*optimizer.param_groups, *optimizer.state.values()]
    return [value for part in held for value in part.values() if isinstance(value, Tensor)]


def _tensors(batch: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]


def _read_by(loss: Any) -> list[Tensor]:
    """The tensors that an objective reads, and those of one within it."""
    found = []
    for value in vars(loss).values():
        if hasattr(value, "differentiable_loss"):
            found += _read_by(value)
        elif isinstance(value, Tensor | dict):
            found += _tensors(value)
    return found


def _constants(graph: Any) -> list[Any]:
    return [node for node in graph.graph.nodes if node.op == "get_attr"]


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in its parameter's layout, as ``backward`` leaves it; fused updates need it."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _shorten(graph: Any) -> None:
    """Take out what computes nothing."""
    for node in graph.graph.nodes:
        if node.target in (torch.ops.aten.alias.default, torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
    for node in reversed(graph.graph.nodes):
        # Optimisers mark their steps for profilers.
        if "_record_function" in str(node.target):
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _return_loss_alone(graph: Any) -> None:
    """Hand out no gradients, which an update has used: so they need not be kept until the end."""
    (output,) = graph.graph.find_nodes(op="output")
    output.args = (output.args[0][:1],)
    graph.recompile()


def _in_words(error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error) else repr(error)
    return "the programs look at the value of a tensor" if _READ in first else first


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    for mine, theirs in zip(found, expected, strict=True):
        if not bool((mine - theirs).norm() <= TOLERANCE * theirs.norm()):
            return "the graph gives other numbers than the programs"
    return None
