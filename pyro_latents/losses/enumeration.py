"""The bound with discrete sites summed exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import pyro.infer
import torch
from pyro.distributions.score_parts import ScoreParts
from pyro.infer.traceenum_elbo import _compute_dice_elbo, _compute_model_factors
from pyro.infer.util import Dice
from pyro.ops import packed
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.losses.differentiable import DifferentiableELBO
from pyro_latents.programs import random_sites

Weights = Mapping[str, float | Tensor]


class TraceEnum_ELBO(DifferentiableELBO, pyro.infer.TraceEnum_ELBO):
    r"""`pyro.infer.TraceEnum_ELBO` whose sites have weights, and whose sites may differ in dtype.

    .. math:: \mathbb{E}_q \Big[ \sum_s w_s \log p_s - \sum_s w_s \log q_s \Big]

    The expectation is under the guide as it is: a weight multiplies the log-density of a site, in
    the model and in the guide, and no probability that others are averaged with. Zero is a
    weight; the terms are computed all the same. The differences from the parent but for that: the
    module form also works where no gradient is wanted; log-densities of several number formats,
    which a forward pass in mixed precision leaves, are added in the widest of them; and while
    Pyro's validation is off a step waits for no value of the device, unless sites are summed in
    the model.

    Args:
        weights: Of sites by name, numbers or 0-d tensors that may change between steps; 1 if not
            named. Sites that are summed out of the model itself, without the guide, must have the
            weight of all that depends on them: Pyro raises ValueError if they have not.
        gradient_shares: Of categorical sites of the guide by name, the share of its gradient that
            reaches the logits. The value of the bound does not depend on it.
        **options: Those of `pyro.infer.TraceEnum_ELBO`.

    Raises:
        UserError: at a batch, if a site with a share is not categorical.

    Example:
        >>> loss = TraceEnum_ELBO(weights={"y": 0.5}, max_plate_nesting=1)
        >>> svi = SVI(model, guide, optim, loss)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        weights: Weights | None = None,
        gradient_shares: Weights | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.weights = dict(weights or {})
        self.gradient_shares = dict(gradient_shares or {})

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss as a scalar tensor, a sum over the data plate in nats."""
        total = torch.zeros(())
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            device = next(site["value"].device for _, site in random_sites(model_trace))
            # Pyro adds by products, which mixed precision would round.
            with torch.autocast(device.type, enabled=False):
                total = total - _bound(model_trace, guide_trace)
        return total / self.num_particles

    def _get_traces(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> Iterator[tuple[Trace, Trace]]:
        if self.gradient_shares:
            guide = GradientShares(self.gradient_shares)(guide)
        if self.weights:
            model, guide = Weighted(self.weights)(model), Weighted(self.weights)(guide)
        return super()._get_traces(model, guide, args, kwargs)

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        traces = pyro.infer.TraceEnum_ELBO._get_trace(self, model, guide, args, kwargs)
        sites = [site["packed"] for trace in traces for _, site in random_sites(trace)]
        dtypes = [site["log_prob"].dtype for site in sites]
        widest = reduce(torch.promote_types, dtypes, torch.float32)
        if any(dtype != widest for dtype in dtypes):
            for site in sites:
                site.update({name: _as(widest, value) for name, value in site.items()})
        return traces


class Weighted(Messenger):
    """Multiplies the log-densities of sites by their weights.

    Args:
        weights: By the name of the site.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = weights

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.weights:
            msg["scale"] = msg["scale"] * self.weights[msg["name"]]


class GradientShares(Messenger):
    """Lets only a share of the gradient reach the logits of categorical sites.

    Args:
        shares: By the name of the site.
    """

    def __init__(self, shares: Weights) -> None:
        super().__init__()
        self.shares = shares

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.shares:
            return
        logits = getattr(msg["fn"], "logits", None)
        if logits is None:
            raise UserError(
                f"a share of the gradient is for categorical sites; {msg['name']!r} of the guide "
                f"is {type(msg['fn']).__name__}."
            )
        still = logits.detach()
        msg["fn"] = type(msg["fn"])(logits=still + self.shares[msg["name"]] * (logits - still))


class _Expectation(Dice):
    """Pyro's expectation over what a guide enumerates and draws, without a look at its values."""

    def compute_expectation(self, costs: Mapping[Any, Sequence[Any]]) -> Any:
        """Return the sum of costs, each weighed by the probability of what it depends on."""
        total: Any = 0.0
        for ordinal, terms in costs.items():
            factors = self._get_log_factors(ordinal)
            tensors = [factor for factor in factors if isinstance(factor, Tensor)]
            scale = math.exp(sum(f for f in factors if not isinstance(f, Tensor)))
            for cost in terms:
                total = total + scale * _expected(tensors, cost)
        return total


def _bound(model_trace: Trace, guide_trace: Trace) -> Any:
    """The evidence lower bound of packed traces."""
    costs, summed, ordering, *_ = _compute_model_factors(model_trace, guide_trace)
    if summed:
        return _compute_dice_elbo(model_trace, guide_trace)
    for name, site in random_sites(guide_trace):
        costs.setdefault(ordering[name], []).append(packed.neg(site["packed"]["log_prob"]))
    return _Expectation(guide_trace, ordering).compute_expectation(costs)


def _expected(log_factors: Sequence[Any], cost: Any) -> Tensor:
    """The sum of a packed cost times the probability of each of its elements."""
    if not log_factors:
        return cost.sum()
    known = dict.fromkeys(dim for factor in log_factors for dim in factor._pyro_dims)
    kept = "".join(dim for dim in known if dim in cost._pyro_dims)
    equation = ",".join(factor._pyro_dims for factor in log_factors)
    prob: Any = torch.einsum(f"{equation}->{kept}", *(factor.exp() for factor in log_factors))
    prob._pyro_dims = kept
    prob, cost = packed.broadcast_all(prob, cost)
    # What is impossible counts nothing, be its cost infinite.
    return (prob * torch.where(prob > 0, cost, 0.0)).sum()


def _as(dtype: torch.dtype, value: Any) -> Any:
    """A packed log-density, or several, in another number format."""
    if isinstance(value, ScoreParts):
        return ScoreParts(*(_as(dtype, part) for part in value))
    if not hasattr(value, "_pyro_dims") or not value.is_floating_point():
        return value
    cast = value.to(dtype)
    cast._pyro_dims = value._pyro_dims
    return cast
