"""What a model shows of itself: reconstructions and draws, as the means of their pixels."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_latents.parameters import local_parameters
from pyro_latents.traces import paired_traces


def reconstructions(model: Callable, guide: Callable, *batch: Any, site: str = "x") -> Tensor:
    """The mean of a likelihood site at one draw of the guide, of the shape of the observations."""
    with torch.no_grad(), local_parameters(model, guide):
        model_trace, _ = paired_traces(model, guide, *batch)
    return model_trace.nodes[site]["fn"].mean


def prior_means(model: Callable, size: int, site: str = "x") -> Tensor:
    """The mean of a likelihood site at draws of the prior, of shape `size *x_shape`."""
    with torch.no_grad(), local_parameters(model):
        trace = poutine.trace(model).get_trace(size=size)
    return trace.nodes[site]["fn"].mean
