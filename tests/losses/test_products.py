"""Products in captured steps are those of PyTorch."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_latents.losses import products

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch has no oneDNN"
)


@pytest.fixture(autouse=True)
def quicker(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_quicker", lambda: True)


def quickened(function, *inputs):
    """The graph of a function, and how many of its products are oneDNN's."""
    graph = make_fx(function)(*inputs)
    products.quicken_products(graph)
    linear = torch.ops.mkldnn._linear_pointwise.default
    found = graph.graph.find_nodes(op="call_function", target=linear)
    torch.testing.assert_close(graph(*inputs), function(*inputs), rtol=1e-5, atol=1e-4)
    return len(found)


def layers(x, weight, bias):
    return torch.addmm(bias, x, weight) @ weight.t()


@pytest.mark.parametrize("transposed", [False, True])
def test_large_ones_are_onednns(transposed):
    weight = torch.randn(90, 80).t() if transposed else torch.randn(80, 90)
    assert quickened(layers, torch.randn(100, 80), weight, torch.randn(90)) == 2


def test_small_ones_are_left_alone():
    assert quickened(layers, torch.randn(4, 80), torch.randn(80, 90), torch.randn(90)) == 0


def test_other_number_formats_are_left_alone():
    x, weight, bias = (torch.randn(*n).double() for n in ((100, 80), (80, 90), (90,)))
    assert quickened(layers, x, weight, bias) == 0


def test_long_sums_are_left_alone():
    assert quickened(torch.mm, torch.randn(16, 20_000), torch.randn(20_000, 8)) == 0


def test_other_sums_are_left_alone():
    def scaled(bias, x, weight):
        return torch.addmm(bias, x, weight, beta=2)

    x, weight = torch.randn(100, 80), torch.randn(80, 90)
    assert quickened(scaled, torch.randn(90), x, weight) == 0
    assert quickened(torch.addmm, torch.randn(100, 90), x, weight) == 0
