"""The evidence lower bound, term by term."""

from collections import defaultdict
from collections.abc import Callable

import torch
from pyro.distributions.util import scale_and_mask
from torch.distributions import kl_divergence

from pyro_latents.data.batches import BatchMaker
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.programs import Site, local_parameters, paired_traces, random_sites


def bound_terms(
    model: Callable, guide: Callable, batches: BatchMaker, *, seed: int = 0, batch_size: int = 500
) -> dict[str, float]:
    """Estimate the bound on a data set with one draw for each data point.

    Returns:
        In nats per data point: ``elbo``, ``reconstruction`` (the log-density of what is observed)
        and ``kl_SITE`` for each latent site (analytic where torch knows it, else a difference of
        log-densities at the draw), with ``elbo = reconstruction - sum of the kl_SITE``.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    with torch.no_grad(), local_parameters(model, guide):
        for batch in seeded_batches(batches, size=batch_size, seed=seed):
            model_trace, guide_trace = paired_traces(model, guide, *batch)
            for name, site in random_sites(model_trace):
                if site["is_observed"]:
                    sums["reconstruction"] += site["log_prob_sum"].item()
                else:
                    sums[f"kl_{name}"] += _divergence(site, guide_trace.nodes[name])
    terms = {name: total / len(batches) for name, total in sums.items()}
    divergence = sum(value for name, value in terms.items() if name != "reconstruction")
    return {"elbo": terms["reconstruction"] - divergence, **terms}


def _divergence(model_site: Site, guide_site: Site) -> float:
    """The divergence of a site's guide from its model, summed over the plate, in nats."""
    try:
        divergence = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        return (guide_site["log_prob_sum"] - model_site["log_prob_sum"]).item()
    return scale_and_mask(divergence, guide_site["scale"], guide_site["mask"]).sum().item()
