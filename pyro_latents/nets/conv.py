"""Convolutions: those of Giannone et al. (2019), appendix B, for 28x28 images, and their parts."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_latents.nets.initial import initialise_for_relu

IMAGE_SIZE = 28
# Of the weights, and so of what layers hand on: an eighth faster on a CPU than the usual one.
LAYOUT = torch.channels_last
# With so few output channels a product and a fold are quicker than PyTorch's loop on a CPU.
FEW_CHANNELS = 4
_GRADIENT = torch.ops.aten.convolution_backward


def over_leading(function: Callable[[Tensor], Tensor], x: Tensor, event_dims: int) -> Tensor:
    """Apply a function that wants exactly one batch dimension over any number of them.

    Vectorised particles, parallel enumeration and ``Predictive(parallel=True)`` all put dimensions
    in front of the batch; convolutions and grid samplers accept only one.

    Args:
        function: Maps `n *event_in` to `n *event_out`.
        x: Input of shape `*leading *event_in`.
        event_dims: The number of dimensions of `event_in`.

    Returns:
        The output, of shape `*leading *event_out`.
    """
    leading = x.shape[: x.dim() - event_dims]
    if len(leading) == 1:
        return function(x)
    flat = function(x.reshape(-1, *x.shape[x.dim() - event_dims :]))
    return flat.reshape(*leading, *flat.shape[1:])


class Conv(nn.Conv2d):
    """A convolution that is quick on a CPU as the first and the last layer of an encoder.

    From a few channels it is a product with copies of the patches: .7 ms in place of 2.1 for a
    batch of 100 in the encoder of Giannone et al. (2019). To one pixel it is a linear map by those
    weights that meet the image: 2.6 ms in place of 7, forward and backward. Elsewhere, and on
    other devices, it is PyTorch's own. Parameters and output are the same.
    """

    padding: tuple[int, ...]  # Never a word, as it may be.

    def forward(self, x: Tensor) -> Tensor:
        """Map `batch in_channels height width` to `batch out_channels *size`."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if x.device.type != "cpu" or x.dim() != 4 or not plain:
            return super().forward(x)
        if self._gives_one_pixel(x):
            return self._to_one_pixel(x)
        # In bfloat16 oneDNN is quicker.
        if self.in_channels <= FEW_CHANNELS and not torch.is_autocast_enabled("cpu"):
            return self._from_few_channels(x)
        return super().forward(x)

    def _gives_one_pixel(self, x: Tensor) -> bool:
        size = x.shape[2:]
        ends = [p + length for p, length in zip(self.padding, size, strict=True)]
        # The first position of the filter covers the image, and there is no second one.
        covers = all(end <= k for end, k in zip(ends, self.kernel_size, strict=True))
        return covers and all(
            end + p < k + stride
            for end, p, k, stride in zip(
                ends, self.padding, self.kernel_size, self.stride, strict=True
            )
        )

    def _to_one_pixel(self, x: Tensor) -> Tensor:
        (top, left), (height, width) = self.padding, x.shape[2:]
        # Channels last, as they lie in memory, and as the gradient shall.
        weight = self.weight.permute(0, 2, 3, 1)[:, top : top + height, left : left + width]
        out = F.linear(x.permute(0, 2, 3, 1).flatten(1), weight.flatten(1), self.bias)
        return out[:, :, None, None]

    def _from_few_channels(self, x: Tensor) -> Tensor:
        (top, left), (height, width) = self.padding, self.kernel_size
        padded = F.pad(x, (left, left, top, top))
        patches = padded.unfold(2, height, self.stride[0]).unfold(3, width, self.stride[1])
        # `batch rows columns in_channels height width`, and channels last in what comes out.
        patches = patches.permute(0, 2, 3, 1, 4, 5)
        out = F.linear(patches.flatten(3), self.weight.flatten(1), self.bias)
        return out.permute(0, 3, 1, 2)


class _Transposed(torch.autograd.Function):
    """PyTorch's transposed convolution, its gradient by those of the plain convolution.

    They are the same numbers; oneDNN's own take a third longer, and in bfloat16 twice as long.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
        return F.conv_transpose2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = F.conv2d(gradient, weight, stride=ctx.stride, padding=ctx.padding)
        if ctx.needs_input_grad[1]:
            # Of the convolution that maps the gradient to that of x. `torch.nn.grad` forgets the
            # layout of the weight.
            places = (ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (False, True, False))
            of_weight = _GRADIENT(x, gradient, weight, None, *places)[1]
        return of_x, of_weight, None, None


class TransposedConv(nn.ConvTranspose2d):
    """A transposed convolution that is quick on a CPU.

    From one pixel it is a linear map; to a few channels it is a product with the filters, then a
    sum of what overlaps. Of the decoder of Giannone et al. (2019), a batch of 400 on one core, the
    last layer takes 34 ms in place of 102 forward and backward, and the first 17 in place of 27.
    Between them its gradient is that of convolutions. Elsewhere, and on other devices, it is
    PyTorch's own. Parameters and output are the same.
    """

    padding: tuple[int, ...]  # Never a word, as it may be in a convolution.

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map `batch in_channels height width` to `batch out_channels *size`."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.output_padding == (0, 0)
        if x.device.type != "cpu" or x.dim() != 4 or output_size is not None or not plain:
            return super().forward(x, output_size)
        if x.shape[2:] == (1, 1) and self.padding == (0, 0):
            return self._from_one_pixel(x)
        if self.out_channels <= FEW_CHANNELS:
            return self._to_few_channels(x)
        weight = self.weight
        # Autocast leaves double precision as it is.
        if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
            x, weight = (value.to(torch.get_autocast_dtype("cpu")) for value in (x, weight))
        out: Any = _Transposed.apply(x, weight, self.stride, self.padding)
        return self._shifted(out)

    def _from_one_pixel(self, x: Tensor) -> Tensor:
        # Channels last within each output pixel, the layout that the next layer wants.
        weight = self.weight.permute(0, 2, 3, 1)
        out = (x.flatten(1) @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        return self._shifted(out.permute(0, 3, 1, 2))

    def _to_few_channels(self, x: Tensor) -> Tensor:
        columns = self.weight.flatten(1).t() @ x.flatten(2)
        size = tuple(
            (length - 1) * stride - 2 * padding + kernel
            for length, stride, padding, kernel in zip(
                x.shape[2:], self.stride, self.padding, self.kernel_size, strict=True
            )
        )
        out = F.fold(columns, size, self.kernel_size, stride=self.stride, padding=self.padding)
        return self._shifted(out)

    def _shifted(self, out: Tensor) -> Tensor:
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]


class ConvEncoder(nn.Module):
    """Features of a 28x28 image: 4x4 filters, stride 2, with 32, 32, 64 and 128 channels.

    The paper gives neither the padding nor the size of its last layer, a convolution to twice the
    latent size. With padding 1 the four convolutions leave one pixel, on which that layer is a
    linear map: it is the head of the guide here (`guides.families`), so that heads can be swapped.

    Args:
        channels: Channels of the image.
    """

    features_dim = 128

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Conv(channels, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            Conv(64, self.features_dim, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        initialise_for_relu(self)
        self.to(memory_format=LAYOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Map `*leading channels 28 28` to `*leading features_dim`."""
        return over_leading(self.layers, x, event_dims=3)


class ConvDecoder(nn.Module):
    """The parameters of `p(x | z)` (logits or means) for a 28x28 image.

    A convolution on one pixel (a linear map to 128 channels), then transposed convolutions with
    4x4 filters and 64, 32, 32 and `channels` channels. The paper says that the last two have
    stride 2; the sizes 1, 4, 7, 14, 28 follow from it.

    Args:
        z_dim: Size of the latent code.
        channels: Channels of the image.
    """

    def __init__(self, z_dim: int, channels: int = 1) -> None:
        super().__init__()
        self.x_shape = (channels, IMAGE_SIZE, IMAGE_SIZE)
        self.layers = nn.Sequential(
            nn.Linear(z_dim, 128),
            nn.ReLU(),
            nn.Unflatten(-1, (128, 1, 1)),
            TransposedConv(128, 64, 4),
            nn.ReLU(),
            TransposedConv(64, 32, 4),
            nn.ReLU(),
            TransposedConv(32, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            TransposedConv(32, channels, 4, stride=2, padding=1),
        )
        initialise_for_relu(self)
        self.to(memory_format=LAYOUT)

    def forward(self, z: Tensor) -> Tensor:
        """Map `*leading z_dim` to `*leading channels 28 28`."""
        return over_leading(self.layers, z, event_dims=1)
