"""Where a loss stopped being a number."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor


def first_non_finite_site(model: Callable, guide: Callable, batch: tuple[Any, ...]) -> str | None:
    """Say which sample site first has a value or log-density that is not finite.

    The guide is searched before the model, each in the order of its sites. Distributions are not
    validated, so that the search gets past the first bad parameter.

    Returns:
        One phrase, such as ``the log-density of site 'z' in the guide is nan``, or None if every
        site is finite.
    """
    with torch.no_grad(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*batch)
        found = _search(guide_trace, "guide")
        if found is None:
            replayed = poutine.replay(model, guide_trace)
            found = _search(poutine.trace(replayed).get_trace(*batch), "model")
    return found


def _search(trace: Trace, where: str) -> str | None:
    for name, site in trace.nodes.items():
        if site["type"] != "sample":
            continue
        fn: Any = site["fn"]
        for what, tensor in (
            ("value", site["value"]),
            ("log-density", fn.log_prob(site["value"])),
        ):
            bad = _first_bad(tensor)
            if bad is not None:
                return f"the {what} of site {name!r} in the {where} is {bad}"
    return None


def _first_bad(tensor: Any) -> float | None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        return None
    bad = tensor[~torch.isfinite(tensor)]
    return bad[0].item() if len(bad) else None
