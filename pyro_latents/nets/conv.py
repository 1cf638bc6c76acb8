"""The convolutional networks of Giannone et al. (2019), appendix B, for 28x28 images."""

import torch
from torch import Tensor, nn

from pyro_latents.nets.initial import initialise_for_relu
from pyro_latents.nets.leading import over_leading
from pyro_latents.nets.transposed import TransposedConv

IMAGE_SIZE = 28
# Of the weights, and so of what layers hand on: an eighth faster on a CPU than the usual one.
LAYOUT = torch.channels_last


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
            nn.Conv2d(channels, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, self.features_dim, 4, stride=2, padding=1),
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
