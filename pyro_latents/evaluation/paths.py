"""Chains from a guide to the posterior and back, which adapt first and stand still when it counts.

What makes chains efficient, the metric and the step sizes of each data point, is found in runs
whose weights are thrown away, and is frozen in those that count: else there would be no bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from pyro_latents.errors import UserError
from pyro_latents.evaluation.hamiltonian import Kernel
from pyro_latents.evaluation.target import Point, Target

# Steps of a trajectory, and the share of them that is to be accepted.
LEAPFROGS, ACCEPTANCE = 3, 0.8
# Step sizes differ by as much from move to move, so that no trajectory comes back to its start.
JITTER = 0.2
# Of the guide, for its spread.
SPREAD_DRAWS = 64
# Draws a dimension, correlated ones, that the diagonal of a covariance counts as.
SHRINKAGE = 5
# Of a run that adapts, at the least.
FEWEST_MOVES = 20
# Moves at the posterior that part the chains of an upper bound, which begin at one draw.
PARTING = 10


@dataclass(frozen=True)
class Path:
    """A kernel that stands still, from the guide to the posterior in equal steps.

    Args:
        kernel: Moves the chains.
        step_sizes: At each temperature, of shape `temperatures+1 batch`.
        tick: Called after each move.
    """

    kernel: Kernel
    step_sizes: Tensor
    tick: Callable[[], Any]

    def forward(self) -> tuple[Tensor, Point, Tensor]:
        """Anneal draws of the guide.

        Returns:
            Log-weights in nats, `chains batch`, where the chains end, and the mean probability of
            acceptance, of shape `batch`.
        """
        point, last = start(self.kernel.target), len(self.step_sizes) - 1
        log_weights, accepted = point.log_p.new_zeros(point.log_p.shape).double(), []
        for t in range(last):
            log_weights += (point.log_p - point.log_q) / last
            # The last move serves no weight, and brings the chains to the posterior.
            point, probability = self.move(point, t + 1)
            accepted.append(probability.mean(0))
        return log_weights, point, torch.stack(accepted).mean(0)

    def backward(self, truth: Trace) -> Tensor:
        """Anneal a draw of the posterior to the guide; return log-weights, `chains batch`.

        It is a run of the model. All chains begin with it: each of them at a draw of the
        posterior, after moves that part them.
        """
        target, last = self.kernel.target, len(self.step_sizes) - 1
        point = target(target.position(truth))
        for _ in range(PARTING):
            point, _ = self.move(point, last)
        log_weights = point.log_p.new_zeros(point.log_p.shape).double()
        for t in reversed(range(last)):
            log_weights += (point.log_p - point.log_q) / last
            if t:
                point, _ = self.move(point, t)
        return log_weights

    def move(self, point: Point, t: int) -> tuple[Point, Tensor]:
        """Move the chains at a temperature, and return the probabilities of acceptance too."""
        moved = self.kernel(point, t / (len(self.step_sizes) - 1), _jittered(self.step_sizes[t]))
        self.tick()
        return moved


def adapting_moves(num_temperatures: int) -> int:
    """Return the number of moves that adaptation takes."""
    return 2 * max(FEWEST_MOVES, num_temperatures // 2)


def adapted(target: Target, num_temperatures: int, tick: Callable[[], Any]) -> Path:
    """Find metric and step sizes in two runs from the guide to the posterior, and keep no more.

    The first run has the guide's spread as its metric, and finds a covariance in its second half,
    nearer to the posterior; the second has that.
    """
    moves = adapting_moves(num_temperatures) // 2
    draws = torch.cat([target.draw() for _ in range(-(-SPREAD_DRAWS // target.shape[0]))])
    metric = torch.diag_embed(draws.std(0))
    step_size = metric.new_full(metric.shape[:1], 0.5)
    _, positions = _pilot(Kernel(target, metric, LEAPFROGS), moves, step_size, tick)
    kernel = Kernel(target, _factor(positions[moves // 2 :].flatten(0, 1)), LEAPFROGS)
    found, _ = _pilot(kernel, moves, step_size, tick)
    at = torch.linspace(0, moves - 1, num_temperatures + 1, device=metric.device).round().long()
    return Path(kernel, _smoothed(found)[at], tick)


def _pilot(
    kernel: Kernel, moves: int, step_size: Tensor, tick: Callable[[], Any]
) -> tuple[Tensor, Tensor]:
    """Adapt step sizes on the way to the posterior.

    Returns:
        The step sizes, `moves batch`, and where the chains went, `moves chains batch dim`.
    """
    point = start(kernel.target)
    step_sizes, positions = [], []
    for move in range(moves):
        point, probability = kernel(point, (move + 1) / moves, _jittered(step_size))
        # Far from the right size at first, where the probability says little of how far.
        rate = 2.0 if move < 10 else 0.5
        step_size = step_size * (rate * (probability.mean(0) - ACCEPTANCE)).exp()
        step_sizes.append(step_size)
        positions.append(point.position)
        tick()
    return torch.stack(step_sizes), torch.stack(positions)


def _factor(draws: Tensor) -> Tensor:
    """The factor of a covariance of draws `n batch dim`, drawn towards its diagonal."""
    centred = draws - draws.mean(0)
    covariance = torch.einsum("nbi,nbj->bij", centred, centred) / len(draws)
    weight = len(draws) / (len(draws) + SHRINKAGE * draws.shape[-1])
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    # A coordinate that never moved has none.
    variance = variance.clamp_min(torch.finfo(variance.dtype).tiny ** 0.5)
    mixed = weight * covariance + (1 - weight) * torch.diag_embed(variance)
    return torch.linalg.cholesky(mixed)


def _smoothed(step_sizes: Tensor, width: int = 5) -> Tensor:
    """Geometric means of step sizes `moves batch` over neighbouring moves."""
    logs = pad(step_sizes.log().T[:, None], (width // 2, width // 2), mode="replicate")
    return avg_pool1d(logs, width, stride=1)[:, 0].T.exp()


def _jittered(step_size: Tensor) -> Tensor:
    return step_size * (1 + JITTER * (2 * torch.rand_like(step_size) - 1))


def start(target: Target) -> Point:
    """Return draws of the guide; each must have a density in the guide and in the model."""
    point = target(target.draw())
    broken = ~(point.log_p.isfinite() & point.log_q.isfinite()).all(0)
    if bool(broken.any()):
        raise UserError(
            f"draws of the guide have no finite density for {int(broken.sum())} of "
            f"{len(broken)} data points: no chain can start there. Train the guide, or choose one "
            "on the support of the model."
        )
    return point
