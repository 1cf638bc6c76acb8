"""Simulation-based calibration of an amortised guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.evaluation.draws import several
from pyro_latents.programs import local_parameters, random_sites


def calibrate(
    model: Callable, guide: Callable, *batch: Any, num_draws: int = 200
) -> dict[str, Tensor]:
    """Draw latent variables and data from the model, and rank the truth under the guide.

    Args:
        model: The generative model, from whose prior the data are drawn.
        guide: The guide, with the same arguments.
        *batch: Their arguments. Each that the model observes is replaced by simulated data of its
            shape; anything else is kept.
        num_draws: Draws of the guide for each data point.

    Returns:
        For each site the share of the guide's draws below the truth, made continuous by spreading
        each rank evenly over its cell, of shape `data_points coordinates`. For a guide that is
        the posterior they are uniform in (0, 1), whatever the model.

    Raises:
        UserError: if a site that the model observes is none of the arguments, its prior cannot
            be drawn from, or a site lies outside of the data plate.

    References:
        Validating Bayesian Inference Algorithms with Simulation-Based Calibration
        (Talts et al., 2018), https://arxiv.org/abs/1804.06788
    """
    with torch.no_grad(), local_parameters(model, guide):
        try:
            observed = poutine.trace(model).get_trace(*batch)
            simulated = poutine.trace(poutine.uncondition(model)).get_trace(*batch)
        except NotImplementedError as error:
            raise UserError(
                "the model's prior cannot be drawn from, as calibration must: choose a proper one."
            ) from error
        drawn = several(guide, num_draws, *with_simulated(batch, observed, simulated))
    truth, ranks = dict(random_sites(simulated)), {}
    for name, site in random_sites(drawn):
        is_continuous = not site["is_observed"] and site["value"].is_floating_point()
        # What a loss marginalises by its maximum is a path of another start in model and guide.
        if name in truth and is_continuous and "maximize" not in truth[name]["infer"]:
            ranks[name] = _ranks(truth[name]["value"], site["value"])
    return ranks


def p_values(ranks: Mapping[str, Tensor]) -> dict[str, float]:
    """Return for each site the p-value of a uniform distribution of its ranks.

    It is that of the largest Kolmogorov-Smirnov distance of a coordinate, corrected for the
    number of coordinates (Bonferroni).
    """
    from scipy.stats import kstest

    return {
        name: min(1.0, r.shape[1] * kstest(r.double().cpu().numpy(), "uniform").pvalue.min())
        for name, r in ranks.items()
    }


def with_simulated(batch: Sequence[Any], observed: Trace, simulated: Trace) -> list[Any]:
    arguments = list(batch)
    for name, site in random_sites(observed):
        if not site["cond_indep_stack"]:
            raise UserError(
                f"site {name!r} is one variable for all data points, of which a simulation gives "
                "no more than one rank: calibration is for those of each point."
            )
        if not site["is_observed"] or site["infer"].get("is_auxiliary"):
            continue
        found = [i for i, argument in enumerate(batch) if _is_same(argument, site["value"])]
        if not found:
            raise UserError(
                f"site {name!r} is observed, but is none of the model's arguments: calibration "
                "has to put simulated data in its place."
            )
        for i in found:
            arguments[i] = simulated.nodes[name]["value"]
    return arguments


def _is_same(argument: Any, value: Any) -> bool:
    """Whether an argument is what is observed, or another view of it."""
    is_like = isinstance(argument, Tensor) and argument.shape == value.shape
    return is_like and argument.data_ptr() == value.data_ptr()


def _ranks(truth: Tensor, draws: Tensor) -> Tensor:
    """Continuous ranks, of shape `data_points coordinates`."""
    below = (draws < truth).sum(0)
    ranks = (below + torch.rand(truth.shape, device=truth.device)) / (len(draws) + 1)
    return ranks.reshape(len(truth), -1)
