import pytest
import torch
from torch import nn

from pyro_latents.nets.conv import ConvDecoder, ConvEncoder, over_leading
from pyro_latents.nets.mlp import MLP, DenseDecoder, DenseEncoder

pytestmark = pytest.mark.usefixtures("float64")
NETWORKS = {
    "conv encoder": (ConvEncoder, (1, 28, 28), (128,)),
    "conv decoder": (lambda: ConvDecoder(10), (10,), (1, 28, 28)),
    "dense encoder": (lambda: DenseEncoder((1, 8, 8)), (1, 8, 8), (256,)),
    "dense decoder": (lambda: DenseDecoder(3, (2, 8, 8)), (3,), (2, 8, 8)),
    "mlp": (lambda: MLP(4, [8, 8], 2), (4,), (2,)),
}


@pytest.mark.parametrize("leading", [(), (5,), (2, 5), (3, 2, 5)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_any_leading_dimensions_are_accepted(name, leading):
    build, event_in, event_out = NETWORKS[name]
    network, x = build(), torch.randn(*leading, *event_in)
    out = network(x)
    assert out.shape == (*leading, *event_out)
    flat = network(x.reshape(-1, *event_in)).reshape(out.shape)
    torch.testing.assert_close(out, flat)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_known_without_numbers(name):
    build, event_in, event_out = NETWORKS[name]
    with torch.device("meta"):
        assert build()(torch.empty(3, 7, *event_in)).shape == (3, 7, *event_out)


def test_over_leading_sees_one_batch_dimension():
    seen = []
    over_leading(lambda x: seen.append(x.shape) or x, torch.zeros(2, 3, 4, 5), event_dims=2)
    assert seen == [(6, 4, 5)]


def test_an_mlp_without_hidden_layers_is_linear():
    assert len(MLP(4, [], 2)) == 1


@pytest.mark.parametrize("hidden", [[], [8], [10, 12, 8]])
def test_a_linear_start_is_the_given_map(hidden):
    network, weight = MLP(4, hidden, 3), torch.randn(3, 4)
    network.start_linear(weight)
    x = torch.randn(10, 4)
    torch.testing.assert_close(network(x), x @ weight.T)


@pytest.mark.parametrize(
    ("network", "message"),
    [(MLP(4, [9], 3), "got 9"), (MLP(4, [6], 3), "got 6"), (MLP(4, [8], 3, nn.Tanh), "ReLUs")],
)
def test_a_linear_start_needs_pairs_of_relus(network, message):
    with pytest.raises(ValueError, match=message):
        network.start_linear(torch.zeros(3, 4))
