"""Products in captured steps are those of PyTorch."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_latents.losses import products

aten, mkldnn = torch.ops.aten, torch.ops.mkldnn
pytestmark = pytest.mark.skipif(
    not hasattr(mkldnn, "_linear_pointwise"), reason="this PyTorch has no oneDNN"
)


@pytest.fixture
def quicker(monkeypatch):
    monkeypatch.setattr(products, "_is_amd", lambda: True)
    products.quicker_products.cache_clear()
    yield products.quicker_products()
    products.quicker_products.cache_clear()


def layer(x, weight, bias):
    return torch.addmm(bias, x, weight) @ weight.t()


def captured(quicker, *inputs):
    graph = make_fx(layer, decomposition_table=quicker)(*inputs)
    return graph, [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("transposed", [False, True])
def test_large_ones_are_onednns(quicker, transposed):
    weight = torch.randn(90, 80).t() if transposed else torch.randn(80, 90)
    inputs = torch.randn(100, 80), weight, torch.randn(90)
    graph, targets = captured(quicker, *inputs)
    assert targets.count(mkldnn._linear_pointwise.default) == 2
    assert not {aten.mm.default, aten.addmm.default} & set(targets)
    torch.testing.assert_close(graph(*inputs), layer(*inputs), rtol=1e-5, atol=1e-4)


OTHERS = {
    "small": (torch.randn(4, 80), torch.randn(80, 90), torch.randn(90)),
    "double": tuple(torch.randn(100, 100).double() for _ in range(2))
    + (torch.ones(100).double(),),
}


@pytest.mark.parametrize("case", OTHERS)
def test_others_are_left_alone(quicker, case):
    graph, targets = captured(quicker, *OTHERS[case])
    assert mkldnn._linear_pointwise.default not in targets
    assert torch.equal(graph(*OTHERS[case]), layer(*OTHERS[case]))


def test_long_sums_are_left_alone(quicker):
    a, b = torch.randn(16, 20_000), torch.randn(20_000, 8)
    assert quicker[aten.mm.default](a, b) is NotImplemented


def test_scaled_sums_are_left_alone(quicker):
    bias, a, b = torch.randn(90), torch.randn(100, 80), torch.randn(80, 90)
    assert quicker[aten.addmm.default](bias, a, b, beta=2) is NotImplemented
    assert quicker[aten.addmm.default](torch.randn(100, 90), a, b) is NotImplemented
