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
from pyro_latents.evaluation.target import Point, Target, covariance_factor

# Steps of a trajectory, and the share of them that is to be accepted.
LEAPFROGS, ACCEPTANCE = 3, 0.8
# Step sizes differ by as much from move to move, so that no trajectory comes back to its start.
JITTER = 0.2
# Of the guide, for its spread.
SPREAD_DRAWS = 64
# Nats by which other chains must be ahead of those that began at the guide.
FAR = 3.0
# Nats by which the guide's log-density may fall on the way to the posterior.
FAR_FROM_GUIDE = 30.0
# What stands for the guide then is wider than the chains, as they are few.
WIDER = 2.5
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
    return 3 * max(FEWEST_MOVES, num_temperatures // 2)


def adapted(target: Target, num_temperatures: int, tick: Callable[[], Any]) -> Path:
    """Find metric and step sizes in runs to the posterior, and keep no more of them.

    The first run has the guide's spread as its metric, and finds a covariance in its second half,
    nearer to the posterior; the last has that. Between them chains come from the prior.

    Where these end in places that are more probable by far, or the guide's own chains where it is
    less probable by far than where they began, the guide is sure of something else, as it may be
    for data that it was not trained on, such as simulated ones. There a normal with the moments of
    the better chains stands for it.
    """
    moves = adapting_moves(num_temperatures) // 3
    late, first, last = _explored(target, moves, _several(target.draw, target), tick)
    mistaken = (first.log_q - last.log_q).mean(0) > FAR_FROM_GUIDE
    if target.prior_draw() is not None:
        draws = _several(target.prior_draw, target)
        target.begin_instead(torch.ones_like(mistaken), draws)
        rival, _, rivals_last = _explored(target, moves, draws, tick)
        beaten = rivals_last.log_p.mean(0) > last.log_p.mean(0) + FAR
        late = torch.where(beaten[:, None], rival, late)
        mistaken |= beaten
    target.begin_instead(mistaken, late.lerp(late.mean(0), 1 - WIDER))
    kernel = Kernel(target, covariance_factor(late), LEAPFROGS)
    found, _, _, _ = _pilot(kernel, moves, _first_steps(late), tick)
    at = torch.linspace(0, moves - 1, num_temperatures + 1, device=late.device).round().long()
    return Path(kernel, _smoothed(found)[at], tick)


def _explored(
    target: Target, moves: int, draws: Tensor, tick: Callable[[], Any]
) -> tuple[Tensor, Point, Point]:
    """Run chains with the spread of draws as their metric.

    Returns:
        Where they were in the second half, `n batch dim`, at first, and at last.
    """
    kernel = Kernel(target, torch.diag_embed(draws.std(0)), LEAPFROGS)
    _, positions, first, last = _pilot(kernel, moves, _first_steps(draws), tick)
    return positions[moves // 2 :].flatten(0, 1), first, last


def _first_steps(draws: Tensor) -> Tensor:
    return draws.new_full(draws.shape[1:2], 0.5)


def _several(draw: Callable[[], Any], target: Target) -> Tensor:
    return torch.cat([draw() for _ in range(-(-SPREAD_DRAWS // target.shape[0]))])


def _pilot(
    kernel: Kernel, moves: int, step_size: Tensor, tick: Callable[[], Any]
) -> tuple[Tensor, Tensor, Point, Point]:
    """Adapt step sizes on the way to the posterior.

    Returns:
        The step sizes, `moves batch`, where the chains went, `moves chains batch dim`, and where
        they were at first and at last.
    """
    point = first = start(kernel.target)
    step_sizes, positions = [], []
    for move in range(moves):
        point, probability = kernel(point, (move + 1) / moves, _jittered(step_size))
        # Far from the right size at first, where the probability says little of how far.
        rate = 2.0 if move < 10 else 0.5
        step_size = step_size * (rate * (probability.mean(0) - ACCEPTANCE)).exp()
        step_sizes.append(step_size)
        positions.append(point.position)
        tick()
    return torch.stack(step_sizes), torch.stack(positions), first, point


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
