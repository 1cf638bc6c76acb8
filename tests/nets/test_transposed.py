"""The quick convolutions are PyTorch's, values and gradients."""

import pytest
import torch
from torch import nn

from pyro_latents.nets.conv import Conv, TransposedConv

pytestmark = pytest.mark.usefixtures("float64")
LAYERS = [
    # in_channels, out_channels, size, options
    (6, 5, 1, {}),
    (6, 5, 1, {"bias": False, "stride": 2}),
    (6, 1, 4, {"stride": 2, "padding": 1}),
    (6, 3, 5, {"stride": 2, "padding": 2, "bias": False}),
    (6, 8, 4, {"stride": 2, "padding": 1}),
    (6, 2, 4, {"stride": 2, "padding": 1, "output_padding": 1}),
    (6, 2, 4, {"dilation": 2}),
    (6, 2, 4, {"groups": 2}),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "out", "size", "options"), LAYERS)
def test_it_is_pytorchs_transposed_convolution(channels, out, size, options, layout):
    ours = TransposedConv(channels, out, 4, **options)
    assert_same(ours, nn.ConvTranspose2d(channels, out, 4, **options), channels, size, layout)


TO_ONE_PIXEL = [
    # size, options
    (3, {"stride": 2, "padding": 1}),
    (3, {"stride": 2, "padding": 1, "bias": False}),
    (4, {}),
    (4, {"padding": 1}),
    (2, {"stride": 3, "padding": 1}),
    (3, {"stride": 2, "padding": 1, "padding_mode": "circular"}),
    (7, {"stride": 2, "padding": 1}),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "options"), TO_ONE_PIXEL)
def test_a_convolution_to_one_pixel_is_pytorchs(size, options, layout):
    ours = Conv(6, 5, 4, **options)
    assert_same(ours, nn.Conv2d(6, 5, 4, **options), 6, size, layout)


FROM_FEW_CHANNELS = [
    # channels, size, options
    (1, 28, {"stride": 2, "padding": 1}),
    (1, 9, {"stride": (2, 3), "padding": (0, 1), "bias": False}),
    (3, 11, {}),
    (4, 7, {"padding": 2}),
    (3, 9, {"padding": 1, "padding_mode": "reflect"}),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "size", "options"), FROM_FEW_CHANNELS)
def test_a_convolution_from_few_channels_is_pytorchs(channels, size, options, layout):
    ours = Conv(channels, 5, 4, **options)
    assert_same(ours, nn.Conv2d(channels, 5, 4, **options), channels, size, layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_casts_are_pytorchs(kind, dtype):
    ours = {nn.Conv2d: Conv, nn.ConvTranspose2d: TransposedConv}[kind](6, 5, 4).to(dtype)
    theirs = kind(6, 5, 4).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x, found = torch.randn(3, 6, 8, 8, dtype=dtype), []
    for layer in (ours, theirs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        found.append([y, *torch.autograd.grad(y.sum(), [*layer.parameters()])])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0.03, atol=0.03)


def assert_same(ours, theirs, channels, size, layout):
    torch.manual_seed(0)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, channels, size, size)
    found = []
    for layer in (ours, theirs):
        layer.to(memory_format=layout)
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        y = layer(leaf)
        weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
        gradients = torch.autograd.grad((y * weights).sum(), [leaf, *layer.parameters()])
        found.append([y, *gradients])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)


def test_an_output_size_is_heeded():
    layer = TransposedConv(2, 1, 3, stride=2)
    assert layer(torch.zeros(1, 2, 4, 4), output_size=[10, 10]).shape == (1, 1, 10, 10)
