"""Runs of models and guides, and the sites that are random in them."""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample

Site = dict[str, Any]


def paired_traces(model: Callable, guide: Callable, *args: Any) -> tuple[Trace, Trace]:
    """Run the guide, then the model at the guide's values; both have their log-densities.

    Returns:
        The model's trace and the guide's.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
    for trace in (model_trace, guide_trace):
        trace.compute_log_prob()
    return model_trace, guide_trace


def random_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The sample sites of a trace by name, without the subsampling sites of its plates."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            yield name, site


def latent_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The random sites that are neither observed nor auxiliary."""
    for name, site in random_sites(trace):
        if not site["is_observed"] and not site["infer"].get("is_auxiliary"):
            yield name, site


def plate_nesting(*traces: Trace) -> int:
    """How many dimensions the plates of these runs take, counted from the right."""
    return max(
        (
            -frame.dim
            for trace in traces
            for _, site in random_sites(trace)
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        ),
        default=0,
    )


def vectorised(program: Callable, count: int, nesting: int, name: str = "_draws") -> Callable:
    """Return a program that runs `count` times at once, in a dimension left of its plates.

    Args:
        program: A model or guide.
        count: The number of runs.
        nesting: The dimensions that are taken, as `plate_nesting` counts them.
        name: Of the plate; one within another needs a name of its own.
    """
    return pyro.plate(name, count, dim=-nesting - 1)(program)
