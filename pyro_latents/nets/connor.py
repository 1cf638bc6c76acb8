"""The convolutional networks of Connor et al. (2020), table 5, for 28x28 images."""

from torch import Tensor, nn

from pyro_latents.nets.leading import over_leading
from pyro_latents.nets.transposed import TransposedConv


class ConnorEncoder(nn.Module):
    """The code of a 28x28 image: three convolutions of 64 channels and a linear map.

    Args:
        z_dim: Size of the code.
        channels: Channels of the image.
    """

    def __init__(self, z_dim: int, channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, z_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `*leading channels 28 28` to `*leading z_dim`."""
        return over_leading(self.layers, x, event_dims=3)


class ConnorDecoder(nn.Module):
    """The means of a 28x28 image's pixels, in [0, 1].

    Args:
        z_dim: Size of the code.
        channels: Channels of the image.
    """

    def __init__(self, z_dim: int, channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(z_dim, 64 * 7 * 7),
            nn.ReLU(),
            nn.Unflatten(-1, (64, 7, 7)),
            TransposedConv(64, 64, 4, padding=1),
            nn.ReLU(),
            TransposedConv(64, 64, 4, stride=2, padding=2),
            nn.ReLU(),
            TransposedConv(64, channels, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map `*leading z_dim` to `*leading channels 28 28`."""
        return over_leading(self.layers, z, event_dims=1)
