"""What a model shows of itself: reconstructions and draws, as the means of their pixels."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.programs import Site, local_parameters, paired_traces


def reconstructions(model: Callable, guide: Callable, *batch: Any) -> Tensor:
    """The mean of `x` at one draw of the guide, of the shape of the observations."""
    with torch.no_grad(), local_parameters(model, guide):
        model_trace, _ = paired_traces(model, guide, *batch)
    return _mean(model_trace.nodes["x"])


def prior_means(model: Callable, size: int) -> Tensor:
    """The mean of `x` at draws of the prior, of shape `size *x_shape`."""
    with torch.no_grad(), local_parameters(model):
        trace = poutine.trace(model).get_trace(size=size)
    return _mean(trace.nodes["x"])


def _mean(site: Site) -> Tensor:
    return site["fn"].mean
