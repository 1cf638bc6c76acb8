import pytest
import torch
from torch import nn

from pyro_latents.nets.initial import initialise_for_relu

LAYERS = {
    "linear": (nn.Linear(400, 300), (400,)),
    "convolution": (nn.Conv2d(32, 64, 4, stride=2), (32, 20, 20)),
    "transposed": (nn.ConvTranspose2d(64, 32, 4), (64, 20, 20)),
    "transposed with stride": (nn.ConvTranspose2d(64, 32, 4, stride=2), (64, 20, 20)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_second_moment_passes_through_a_relu(name):
    layer, shape = LAYERS[name]
    initialise_for_relu(layer)
    x = torch.randn(20, *shape).relu() * 2**0.5
    out = layer(x)
    if out.dim() == 4:
        # Away from the border, where fewer inputs arrive.
        out = out[..., 4:-4, 4:-4]
    assert (out.relu() ** 2).mean().item() == pytest.approx((x**2).mean().item(), rel=0.15)
