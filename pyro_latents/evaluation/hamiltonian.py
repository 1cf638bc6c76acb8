"""Hamiltonian Monte Carlo for many data points at once, several chains each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_latents.evaluation.target import Point, Target


@dataclass(frozen=True)
class Kernel:
    r"""Transitions that leave :math:`q^{1 - \beta} p^\beta` as it is, up to its constant.

    Every data point has a step size and a metric of its own, which its chains share.

    Args:
        target: The densities of guide and model.
        metric: The factor `L` of a covariance `L L^T`, `batch dim dim`: steps are as long along
            its axes as these are.
        leapfrogs: Steps of a trajectory.
    """

    target: Target
    metric: Tensor
    leapfrogs: int

    def __call__(self, start: Point, beta: float, step_size: Tensor) -> tuple[Point, Tensor]:
        """Move chains, and return where they are with the probabilities of acceptance.

        Args:
            start: Where they are.
            beta: From 0, the guide, to 1, the posterior.
            step_size: In units of the metric, of shape `batch`.
        """
        metric = self.metric * step_size[:, None, None]
        momentum = torch.randn_like(start.position)
        before = _energy(start, beta, momentum)
        end = start
        momentum = momentum + _along(_force(start, beta), metric) / 2
        for remaining in reversed(range(self.leapfrogs)):
            moved = torch.einsum("bij,cbj->cbi", metric, momentum)
            end = self.target(end.position + moved)
            kick = _along(_force(end, beta), metric)
            momentum = momentum + (kick if remaining else kick / 2)
        # A trajectory that left for infinity is not accepted.
        change = (_energy(end, beta, momentum) - before).nan_to_num(torch.inf)
        probability = (-change).clamp_max(0).exp()
        return start.or_where(torch.rand_like(probability) < probability, end), probability


def _energy(point: Point, beta: float, momentum: Tensor) -> Tensor:
    potential = -torch.lerp(point.log_q, point.log_p, beta)
    return potential + momentum.square().sum(-1) / 2


def _force(point: Point, beta: float) -> Tensor:
    return torch.lerp(point.grad_q, point.grad_p, beta)


def _along(force: Tensor, metric: Tensor) -> Tensor:
    return torch.einsum("bij,cbi->cbj", metric, force)
