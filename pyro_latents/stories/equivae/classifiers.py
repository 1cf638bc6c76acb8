"""Classifiers of Feige (2019), section 3.1: by distances of codes, and networks with dropout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pyro_latents.data.batches import mixed_seed

ROWS = 1_000


def distance_probabilities(codes: Tensor, class_means: Tensor) -> Tensor:
    r"""Return :math:`p(y | x) \propto \exp(-\|f_\mathrm{inv}(x) - r_y\|^2)`.

    Args:
        codes: `f_inv(x)`, of shape `*leading r_dim`.
        class_means: :math:`r_y`, of shape `classes r_dim`.

    Returns:
        Of shape `*leading classes`.
    """
    return (-(codes[..., None, :] - class_means).square().sum(-1)).softmax(-1)


def distance_error(codes: Tensor, class_means: Tensor, y: Tensor) -> float:
    """Return the per cent of points whose nearest class mean is of another class than theirs."""
    nearest = torch.cdist(codes, class_means).argmin(-1)
    return 100 * (nearest != y.to(nearest.device)).double().mean().item()


def network_error(network: Callable[[Tensor], Tensor], inputs: Tensor, y: Tensor) -> float:
    """Return the per cent of points that a network of logits takes for another class."""
    predicted = predictions(network, inputs)
    return 100 * (predicted != y.to(predicted.device)).double().mean().item()


@torch.no_grad()
def predictions(network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return the most probable classes, of shape `n`."""
    return torch.cat([network(part).argmax(-1) for part in inputs.split(ROWS)])


def fit_classifier(
    network: nn.Module,
    inputs: Tensor,
    y: Tensor,
    *,
    steps: int,
    seed: int,
    batch_size: int = 100,
    learning_rate: float = 1e-3,
) -> nn.Module:
    """Train a network of logits by cross-entropy and Adam, its rate falling along a cosine.

    Args:
        network: Maps `batch ...` to logits, `batch classes`.
        inputs: Of shape `n ...`, on the device of the network.
        y: Integer classes, of shape `n`.
        steps: Gradient steps.
        seed: Of the order of the batches and of the dropout.
        batch_size: Points in a step; all of them if there are fewer.
        learning_rate: The first step size.

    Returns:
        The network.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(mixed_seed(seed, steps))
    order = torch.empty(0, dtype=torch.long)
    size = min(batch_size, len(inputs))
    network.train()
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(mixed_seed(seed, steps))
        for _ in range(steps):
            if len(order) < size:
                order = torch.cat([order, torch.randperm(len(inputs), generator=generator)])
            index, order = order[:size].to(inputs.device), order[size:]
            optimizer.zero_grad()
            cross_entropy(network(inputs[index]), y[index]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
