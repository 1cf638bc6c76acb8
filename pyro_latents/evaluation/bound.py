"""The evidence lower bound, term by term."""

from collections import defaultdict
from collections.abc import Callable

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_latents.data.batches import BatchMaker
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.programs import (
    Site,
    local_parameters,
    paired_traces,
    plate_nesting,
    random_sites,
)


def bound_terms(
    model: Callable, guide: Callable, batches: BatchMaker, *, seed: int = 0, batch_size: int = 500
) -> dict[str, float]:
    """Estimate the bound on a data set with one draw for each data point.

    Returns:
        The means over the data points of what `bound_by_point` returns.
    """
    found = bound_by_point(model, guide, batches, seed=seed, batch_size=batch_size)
    return {name: values.double().mean().item() for name, values in found.items()}


def bound_by_point(
    model: Callable, guide: Callable, batches: BatchMaker, *, seed: int = 0, batch_size: int = 500
) -> dict[str, Tensor]:
    """Estimate the bound of each data point of a data set with one draw.

    Returns:
        In nats, each of shape `points`: ``elbo``, ``reconstruction`` (the log-density of what is
        observed) and ``kl_SITE`` for each latent site (analytic where torch knows it, else a
        difference of log-densities at the draw), with
        ``elbo = reconstruction - sum of the kl_SITE``. Of sites outside of the data plate each
        data point has an equal part.
    """
    parts: list[dict[str, Tensor]] = []
    with torch.no_grad(), local_parameters(model, guide):
        for batch in seeded_batches(batches, size=batch_size, seed=seed):
            parts.append(_terms(model, guide, batch))
    terms = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    divergence = sum(value for name, value in terms.items() if name != "reconstruction")
    return {"elbo": terms["reconstruction"] - divergence, **terms}


def _terms(model: Callable, guide: Callable, batch: tuple) -> dict[str, Tensor]:
    model_trace, guide_trace = paired_traces(model, guide, *batch)
    rows, plate_dim = len(batch[0]), -plate_nesting(model_trace, guide_trace)
    zero = torch.zeros(rows, device=batch[0].device)
    terms: defaultdict[str, Tensor] = defaultdict(lambda: zero)
    for name, site in random_sites(model_trace):
        if site["is_observed"]:
            name, value = "reconstruction", site["log_prob"]
        else:
            name, value = f"kl_{name}", _divergence(site, guide_trace.nodes[name])
        terms[name] = terms[name] + _by_point(value, rows, plate_dim)
    return dict(terms)


def _divergence(model_site: Site, guide_site: Site) -> Tensor:
    """The divergence of a site's guide from its model, of the site's batch shape, in nats."""
    try:
        divergence = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        return guide_site["log_prob"] - model_site["log_prob"]
    return scale_and_mask(divergence, guide_site["scale"], guide_site["mask"])


def _by_point(value: Tensor, rows: int, plate_dim: int) -> Tensor:
    """Sums over all dimensions but that of the data plate, of shape `rows`."""
    if plate_dim and value.dim() >= -plate_dim and value.shape[plate_dim] == rows:
        return value.movedim(plate_dim, 0).reshape(rows, -1).sum(1)
    return (value.sum() / rows).expand(rows)
