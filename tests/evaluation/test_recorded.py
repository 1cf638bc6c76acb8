"""Functions as graphs, without what is computed once and for all."""

import torch
from torch.func import grad
from torch.fx import GraphModule

from pyro_latents.evaluation.recorded import recorded


def graph_of(function):
    """The graph that a recorded function runs, None where it is run as it is."""
    owner = getattr(function, "__wrapped__", function)
    return owner if isinstance(owner, GraphModule) else None


def test_what_does_not_depend_on_the_argument_is_computed_once():
    weight = torch.randn(3, 3)

    def function(z):
        features = (weight @ weight).exp().sin()
        return (z @ features).square().sum(-1), grad(lambda at: (at @ features).sum())(z)

    z = torch.randn(4, 3)
    graph = recorded(function, z)
    called = {node.target for node in graph_of(graph).graph.nodes}
    assert torch.ops.aten.exp.default not in called
    assert torch.ops.aten.sin.default not in called
    other = torch.randn(4, 3)
    for found, expected in zip(graph(other), function(other), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_function_that_draws_is_run_as_it_is():
    def function(z):
        return (z + torch.rand_like(z),)

    assert recorded(function, torch.randn(4, 3)) is function


def test_a_function_that_looks_at_values_is_run_as_it_is():
    def function(z):
        return (z * 2 if bool(z[0, 0] > 0) else z,)

    z = torch.tensor([[1.0], [-1.0]])
    assert recorded(function, z) is function


def test_a_function_that_writes_to_what_is_computed_once_is_run_as_it_is():
    def function(z):
        whole = torch.zeros(4, 3)
        whole[:, 1:] = z
        return (whole.exp(),)

    z = torch.randn(4, 2)
    kept = recorded(function, z)
    torch.testing.assert_close(kept(z + 1)[0], function(z + 1)[0])
