"""Pyro's automatic guides, for a small data set that stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide

from pyro_latents.programs import local_parameters


def auto_guide(kind: Callable[[Callable], AutoGuide], model: Callable, *batch: Any) -> AutoGuide:
    """Build an automatic guide with all its parameters, each data point its own.

    Pyro's automatic guides are not amortised: their parameters have the size of the data they see
    first, and their plates are those of the model then. So this guide is for exactly this batch,
    for all steps. Pyro makes the parameters in the first run, too late to load a checkpoint; here
    they are made at once.

    Args:
        kind: The class, such as `pyro.infer.autoguide.AutoNormal`, or a function of the model.
        model: The generative model.
        *batch: Its arguments, the whole data set.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> guide = auto_guide(AutoNormal, recipe.model, x)  # doctest: +SKIP
    """
    guide = kind(model)
    with torch.random.fork_rng(), torch.no_grad(), local_parameters(model, guide):
        guide(*batch)
    return guide
