"""Dense networks."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with an activation between them.

    Args:
        in_dim: Size of the last input dimension.
        hidden_dims: Sizes of the hidden layers; empty for a single linear map.
        out_dim: Size of the last output dimension.
        activation: Class of the activation between layers.

    Example:
        >>> MLP(4, [8], 2)(torch.zeros(3, 5, 4)).shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dims: Sequence[int],
        out_dim: int,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        sizes = [in_dim, *hidden_dims, out_dim]
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        for before, after in zip(sizes[1:-1], sizes[2:], strict=True):
            layers += [activation(), nn.Linear(before, after)]
        super().__init__(*layers)


class DenseEncoder(nn.Module):
    """Features of a flattened input, with hidden layers and an activation after the last.

    Args:
        x_shape: Shape of one input, such as `(1, 28, 28)` or `(20,)`.
        hidden_dims: Sizes of the hidden layers; the last is ``features_dim``.
    """

    def __init__(self, x_shape: Sequence[int], hidden_dims: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.features_dim = hidden_dims[-1]
        self._event_dims = len(x_shape)
        self.layers = nn.Sequential(
            MLP(prod(x_shape), hidden_dims[:-1], hidden_dims[-1]), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `*leading *x_shape` to `*leading features_dim`."""
        return self.layers(x.flatten(-self._event_dims))


class DenseDecoder(nn.Module):
    """The parameters of `p(x | z)` (logits or means) by dense layers.

    Args:
        z_dim: Size of the latent code.
        x_shape: Shape of one output.
        hidden_dims: Sizes of the hidden layers, from the code to the output.
    """

    def __init__(
        self, z_dim: int, x_shape: Sequence[int], hidden_dims: Sequence[int] = (256, 256)
    ) -> None:
        super().__init__()
        self.x_shape = tuple(x_shape)
        self.layers = MLP(z_dim, hidden_dims, prod(x_shape))

    def forward(self, z: Tensor) -> Tensor:
        """Map `*leading z_dim` to `*leading *x_shape`."""
        return self.layers(z).unflatten(-1, self.x_shape)
