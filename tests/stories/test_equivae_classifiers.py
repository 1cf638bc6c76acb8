import pytest
import torch
from torch import nn

from pyro_latents.stories.equivae.metrics import (
    distance_error,
    fit_classifier,
    network_error,
    predictions,
)

pytestmark = pytest.mark.usefixtures("float64")


def test_the_error_counts_points_nearer_to_another_class():
    means = torch.tensor([[0.0], [2.0]])
    codes = torch.tensor([[0.1], [0.9], [1.1], [5.0]])
    assert distance_error(codes, means, torch.tensor([0, 1, 1, 1])) == 25


def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(120) % 3
    return torch.randn(120, 2) + 4 * torch.nn.functional.one_hot(y, 3)[:, :2], y


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def test_a_network_learns_and_is_measured_without_dropout():
    x, y = blobs()
    network = fit_classifier(build(), x, y, steps=200, seed=0, batch_size=40, learning_rate=1e-2)
    assert network_error(network, x, y) < 10
    assert torch.equal(predictions(network, x), network(x).argmax(-1))
    assert not network.training


def test_training_depends_on_its_seed_alone():
    x, y = blobs()
    first = fit_classifier(build(), x, y, steps=5, seed=1)
    torch.manual_seed(7)
    second = fit_classifier(build(), x, y, steps=5, seed=1)
    third = fit_classifier(build(), x, y, steps=5, seed=2)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, third[0].weight)


def test_fewer_points_than_a_batch_are_all_taken():
    x, y = blobs()
    fit_classifier(build(), x[:7], y[:7], steps=3, seed=0)
