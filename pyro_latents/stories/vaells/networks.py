"""The convolutional networks of Connor et al. (2020), table 5, and how networks begin."""

from typing import Any

import torch
from torch import Tensor, nn

from pyro_latents.nets.conv import TransposedConv, over_leading


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


def linear_start(model: Any, x: Tensor) -> None:
    """Begin with linear maps to the principal components of `x` and back.

    Args:
        model: The model, with dense networks.
        x: Data points, of shape `batch x_dim`.
    """
    components = torch.linalg.svd(x, full_matrices=False).Vh[: model.operators.z_dim]
    model.encoder.start_linear(components)
    model.decoder.start_linear(components.T)


def even_codes(model: Any, x: Tensor) -> None:
    """Change the encoder's last layer such that codes of `x` have unit second moments.

    Args:
        model: The model.
        x: Data points, of shape `batch *x_shape`.
    """
    last = [m for m in model.encoder.modules() if isinstance(m, nn.Linear)][-1]
    codes = model.encoder(x)
    values, vectors = torch.linalg.eigh(codes.T @ codes / len(codes))
    # Half the usual unit variance: entries of points on a circle are then within [-1, 1].
    root = (vectors / (2 * values).sqrt()) @ vectors.T
    last.weight.copy_(root @ last.weight)
    last.bias.copy_(root @ last.bias)
