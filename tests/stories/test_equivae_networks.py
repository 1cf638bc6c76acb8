from functools import partial

import pytest
import torch

from pyro_latents.stories.equivae.networks import (
    CodeClassifier,
    EquivariantEncoder,
    FeigeDecoder,
    InvariantEncoder,
    LabelClassifier,
)

SHAPES = pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["28", "32"])


@SHAPES
def test_the_networks_take_both_sizes_and_leading_dimensions(shape):
    x = torch.rand(2, 3, *shape)
    assert InvariantEncoder(shape, 5)(x).shape == (2, 3, 5)
    assert LabelClassifier(shape, 4)(x).shape == (2, 3, 4)
    assert FeigeDecoder(7, shape)(torch.randn(2, 3, 7)).shape == (2, 3, *shape)


@SHAPES
def test_the_convolutions_run_once_for_all_classes(shape):
    encoder, seen = EquivariantEncoder(shape, 5), []
    encoder.body[0].register_forward_hook(lambda layer, given, out: seen.append(len(out)))
    x, r = torch.rand(3, *shape), torch.randn(4, 1, 5)
    features = encoder(x, r)
    assert features.shape == (4, 3, encoder.features_dim)
    assert seen == [3]
    torch.testing.assert_close(features[2], encoder(x, r[2].expand(3, -1)))


def test_dropout_is_off_in_evaluation():
    x = torch.rand(3, 1, 28, 28)
    for network in (InvariantEncoder((1, 28, 28), 5, dropout=0.5), CodeClassifier(784, 3)):
        given = x if isinstance(network, InvariantEncoder) else x.flatten(1)
        assert not torch.equal(network(given), network(given))
        network.eval()
        assert torch.equal(network(given), network(given))


@pytest.mark.parametrize("kind", [InvariantEncoder, partial(LabelClassifier, dropout=0.0)])
def test_images_are_deformed_in_training_only_each_by_its_own_map(kind):
    torch.manual_seed(0)
    x = torch.rand(1, 1, 28, 28).expand(3, 2, -1, -1, -1)
    network = kind((1, 28, 28), 5, deform=0.1)
    codes = network(x).reshape(6, 5)
    assert len(codes.unique(dim=0)) == 6
    network.eval()
    plain = kind((1, 28, 28), 5).eval()
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(x), plain(x))
