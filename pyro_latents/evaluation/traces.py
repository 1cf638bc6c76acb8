"""One paired run of guide and model, and the log-densities of its sites."""

from collections.abc import Callable, Iterator
from typing import Any

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
