"""Figures by name: of each data point, then their means and how far these may be off."""

from torch import Tensor

from pyro_latents.evaluation.evidence import Evidence
from pyro_latents.evaluation.paired import standard_error
from pyro_latents.evaluation.verdict import CHAINS, GUIDE, SMOOTHED, verdicts

# Numbers by name; a tensor of shape `points` is what each data point has.
Metrics = dict[str, float | Tensor]

# Metrics that are told with their standard errors.
OF_LOG_PROBABILITIES = ("elbo", "log_likelihood")


def of_evidence(found: Evidence, particles: int) -> Metrics:
    """Return what is reported of the marginal likelihood of data points by so many particles.

    The gap is that of the bound by the same draws. The last three are the shares of the data
    points whose posterior the guide's draws stand for as they are, when smoothed weights choose
    among them, and not at all (`evaluation.verdict`).
    """
    kinds = verdicts(found.k_hat, found.ess, particles)
    return {
        "log_likelihood": found.log_evidence,
        "log_likelihood_particles": particles,
        "log_likelihood_points": len(found.log_evidence),
        "gap": found.log_evidence - found.elbo,
        "k_hat_above_threshold": 100.0 * found.is_unreliable(particles),
        "effective_sample_size": found.ess,
        "posterior_by_guide": 100.0 * (kinds == GUIDE),
        "posterior_by_smoothing": 100.0 * (kinds == SMOOTHED),
        "posterior_needs_chains": 100.0 * (kinds == CHAINS),
    }


def standard_errors(metrics: Metrics) -> dict[str, float]:
    """Return the standard errors of the means of log-probabilities over the data points."""
    found = {}
    for name in OF_LOG_PROBABILITIES:
        values = metrics.get(name)
        if isinstance(values, Tensor) and len(values) > 1:
            found[f"{name}_se"] = standard_error(values)
    return found


def averages(metrics: Metrics) -> dict[str, float]:
    """Return metrics with the means over the data points in the place of their values."""
    return {
        name: value.double().mean().item() if isinstance(value, Tensor) else value
        for name, value in metrics.items()
    }
