"""The convolutional networks of the EquiVAE, for 28x28 and 32x32 images.

Feige (2019) leaves its architecture to an appendix that is not in the paper. One body of ordinary
capacity is chosen here and shared by all that see an image: three convolutions with strides and
no pooling, then a dense layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_latents.models.equivae import joined
from pyro_latents.nets.conv import LAYOUT, TransposedConv, over_leading
from pyro_latents.nets.initial import initialise_for_relu
from pyro_latents.nets.mlp import MLP
from pyro_latents.warps.affine import Affine6

FEATURES = 128


def convolutional_body(
    x_shape: Sequence[int], width: int = 16, dropout: float = 0.0
) -> nn.Sequential:
    """Return the body: an image of 28x28 or 32x32 to `FEATURES` non-negative features.

    The networks below have these arguments too.

    Args:
        x_shape: Shape of the image, `channels height width`.
        width: Channels of the first convolution; the others have twice and four times as many.
        dropout: The share of inputs that each of two dropout layers sets to zero, before and
            after the dense layer.
    """
    return nn.Sequential(
        nn.Conv2d(x_shape[0], width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        # Both sizes of image leave four by four pixels.
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * width * 4 * 4, FEATURES),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


class Deformation(nn.Module):
    """Warps each image by an affine map of its own in training, and leaves it alone otherwise.

    Args:
        x_shape: Shape of the image, `channels height width`.
        scale: The standard deviation of the map's six numbers about the identity, where the frame
            reaches from -1 to 1; 0 for no maps. At 0.1 it turns by about four degrees, scales by a
            tenth and shifts an image of 28 pixels by 1.4.
    """

    def __init__(self, x_shape: Sequence[int], scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.warp = Affine6((x_shape[-2], x_shape[-1])) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        """Map images `*leading channels height width` to images."""
        if self.warp is None or not self.training:
            return x
        shape = (*x.shape[:-3], self.warp.num_parameters)
        return self.warp(x, self.scale * torch.randn(shape, device=x.device, dtype=x.dtype))


class InvariantEncoder(nn.Module):
    """`f_inv(x)`, the code of one image that is averaged over a set (equation 2).

    Its images are deformed in training, if there is a ``deform`` (`Deformation`).
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        r_dim: int,
        width: int = 16,
        dropout: float = 0.0,
        deform: float = 0.0,
    ) -> None:
        super().__init__()
        # It has no parameters, so that their names are the same with and without.
        self.deformation = Deformation(x_shape, deform)
        self.layers = nn.Sequential(
            convolutional_body(x_shape, width, dropout), nn.Linear(FEATURES, r_dim)
        )
        initialise_for_relu(self)
        self.to(memory_format=LAYOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Map `*leading channels height width` to `*leading r_dim`."""
        return over_leading(self.layers, self.deformation(x), event_dims=3)


class EquivariantEncoder(nn.Module):
    """Features of `q(v | r, x)`: the body on `x`, then a dense layer on its features and `r`.

    The convolutions run once for each image, however many classes `r` is enumerated over.
    """

    features_dim = FEATURES

    def __init__(self, x_shape: Sequence[int], r_dim: int, width: int = 16) -> None:
        super().__init__()
        self.body = convolutional_body(x_shape, width)
        self.joint = nn.Sequential(nn.Linear(FEATURES + r_dim, FEATURES), nn.ReLU())
        initialise_for_relu(self)
        self.to(memory_format=LAYOUT)

    def forward(self, x: Tensor, r: Tensor) -> Tensor:
        """Map `batch channels height width` and `*leading r_dim` to `*leading features_dim`.

        The leading dimensions of `r` end in the batch, or in one that is broadcast to it.
        """
        return self.joint(joined(self.image_features(x), r))

    def image_features(self, x: Tensor) -> Tensor:
        """Map `*leading channels height width` to `*leading FEATURES`, whatever `r`."""
        return over_leading(self.body, x, event_dims=3)


class LabelClassifier(nn.Module):
    """Logits of `q(y | x)`, or of the benchmark classifier: the body of `f_inv`, with dropout.

    Its images are deformed in training as those of `f_inv` are.
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        num_classes: int,
        width: int = 16,
        dropout: float = 0.5,
        deform: float = 0.0,
    ) -> None:
        super().__init__()
        self.deformation = Deformation(x_shape, deform)
        self.layers = nn.Sequential(
            convolutional_body(x_shape, width, dropout), nn.Linear(FEATURES, num_classes)
        )
        initialise_for_relu(self.layers[0])
        self.to(memory_format=LAYOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Map `*leading channels height width` to `*leading num_classes`."""
        return over_leading(self.layers, self.deformation(x), event_dims=3)


class CodeClassifier(nn.Sequential):
    """Logits of the classes given a code: dense layers of 128 and 64 units, each with dropout."""

    def __init__(self, in_dim: int, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__(
            nn.Linear(in_dim, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, num_classes),
        )


class FeigeDecoder(nn.Module):
    """The parameters of `p(x | r, v)` (logits or means): dense layers, transposed convolutions.

    The sides of an image are multiples of four; ``width`` are the channels of the last hidden
    layer, and the one before has twice as many.
    """

    def __init__(self, in_dim: int, x_shape: Sequence[int], width: int = 16) -> None:
        super().__init__()
        channels, height, breadth = x_shape
        size = (2 * width, height // 4, breadth // 4)
        self.layers = nn.Sequential(
            MLP(in_dim, [FEATURES], size[0] * size[1] * size[2]),
            nn.ReLU(),
            nn.Unflatten(-1, size),
            TransposedConv(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            TransposedConv(width, channels, 4, stride=2, padding=1),
        )
        initialise_for_relu(self)
        self.to(memory_format=LAYOUT)

    def forward(self, latents: Tensor) -> Tensor:
        """Map `*leading in_dim` to `*leading channels height width`."""
        return over_leading(self.layers, latents, event_dims=1)
