"""Dense networks."""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

import torch
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

    @torch.no_grad()
    def start_linear(self, weight: Tensor) -> None:
        """Make the network the linear map `x -> weight @ x`, with its activations in place.

        Hidden units go in pairs of opposite weights, subtracted from each other:
        `relu(u) - relu(-u) = u`. Training then bends the map where it pays (the "looks linear"
        start of Balduzzi et al. 2017).

        Args:
            weight: The map, of shape `out_dim in_dim`.

        Raises:
            ValueError: if a hidden layer is of odd size or smaller than twice the input, or if an
                activation is not ReLU.
        """
        *hidden, last = [layer for layer in self if isinstance(layer, nn.Linear)]
        if not all(isinstance(layer, nn.Linear | nn.ReLU) for layer in self):
            raise ValueError("a linear start needs ReLUs between the layers")
        pair = torch.tensor([[1.0], [-1.0]]).to(weight)
        before = torch.eye(weight.shape[1]).to(weight)  # the map from x to the pairs so far
        for number, layer in enumerate(hidden):
            size = layer.out_features
            if size % 2 or size < 2 * len(before[0]):
                raise ValueError(
                    "a linear start needs hidden layers of even sizes, of at least twice the "
                    f"{len(before[0])} inputs; got {size}"
                )
            half = layer.weight[: size // 2, : len(before)].clone()
            layer.weight.copy_(torch.kron(pair if number == 0 else pair @ pair.T, half))
            nn.init.zeros_(layer.bias)
            before = half @ before
        half = weight @ torch.linalg.pinv(before)
        last.weight.copy_(torch.kron(pair.T, half) if hidden else half)
        nn.init.zeros_(last.bias)


class DenseEncoder(nn.Sequential):
    """Features of a flattened input, with hidden layers and an activation after the last.

    It maps `*leading *x_shape` to `*leading features_dim`.

    Args:
        x_shape: Shape of one input, such as `(1, 28, 28)` or `(20,)`.
        hidden_dims: Sizes of the hidden layers; the last is ``features_dim``.
    """

    def __init__(self, x_shape: Sequence[int], hidden_dims: Sequence[int] = (256, 256)) -> None:
        layers = nn.Sequential(MLP(prod(x_shape), hidden_dims[:-1], hidden_dims[-1]), nn.ReLU())
        super().__init__(OrderedDict(flatten=nn.Flatten(-len(x_shape)), layers=layers))
        self.features_dim = hidden_dims[-1]


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
