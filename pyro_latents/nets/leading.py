"""Leading dimensions: particles, enumeration and draws in front of the batch."""

from collections.abc import Callable

from torch import Tensor


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
