import pytest
import torch
from torch import nn

from pyro_latents.nets.initial import initialise_for_relu

LAYERS = {
    "linear": (nn.Linear(400, 512), (400,)),
    "convolution": (nn.Conv2d(32, 512, 4, stride=2), (32, 24, 24)),
    "transposed": (nn.ConvTranspose2d(32, 512, 4), (32, 12, 12)),
    "transposed with stride": (nn.ConvTranspose2d(32, 512, 4, stride=2), (32, 12, 12)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_second_moment_passes_through_a_relu(name):
    layer, shape = LAYERS[name]
    initialise_for_relu(layer)
    x = torch.randn(4, *shape).relu() * 2**0.5
    out = layer(x)
    if out.dim() == 4:
        # Away from the border, where fewer inputs arrive.
        out = out[..., 4:-4, 4:-4]
    assert (out.relu() ** 2).mean().item() == pytest.approx((x**2).mean().item(), rel=0.15)
