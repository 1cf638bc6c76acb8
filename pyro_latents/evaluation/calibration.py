"""Simulation-based calibration of an amortised guide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.programs import Site, local_parameters, plate_nesting, random_sites, vectorised


@dataclass(frozen=True)
class Calibration:
    """Where the true latent variables lie among the guide's draws.

    Args:
        ranks: For each site the share of the guide's draws below the truth, made continuous by
            spreading each rank evenly over its cell, of shape `data_points coordinates`. For a
            guide that is the posterior they are uniform in (0, 1), whatever the model.
    """

    ranks: dict[str, Tensor]

    def p_values(self) -> dict[str, float]:
        """Return for each site the p-value of a uniform distribution of its ranks.

        It is that of the largest Kolmogorov-Smirnov distance of a coordinate, corrected for the
        number of coordinates (Bonferroni).
        """
        from scipy.stats import kstest

        return {
            name: min(1.0, ranks.shape[1] * min(kstest(r, "uniform").pvalue for r in ranks.T))
            for name, ranks in ((n, r.double().cpu().numpy()) for n, r in self.ranks.items())
        }


def calibrate(model: Callable, guide: Callable, *batch: Any, num_draws: int = 200) -> Calibration:
    """Draw latent variables and data from the model, and rank the truth under the guide.

    Args:
        model: The generative model, from whose prior the data are drawn.
        guide: The guide, with the same arguments.
        *batch: Their arguments. Each that the model observes is replaced by simulated data of its
            shape; anything else is kept.
        num_draws: Draws of the guide for each data point.

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
        _check_local(simulated)
        arguments = _with_simulated(batch, observed, simulated)
        once = poutine.trace(guide).get_trace(*arguments)
        several = vectorised(guide, num_draws, plate_nesting(once))
        drawn = poutine.trace(several).get_trace(*arguments)
    truth = dict(random_sites(simulated))
    return Calibration(
        {
            name: _ranks(truth[name]["value"], site["value"])
            for name, site in random_sites(drawn)
            if name in truth and _is_ranked(truth[name], site)
        }
    )


def _check_local(simulated: Trace) -> None:
    for name, site in random_sites(simulated):
        if not site["cond_indep_stack"]:
            raise UserError(
                f"site {name!r} is one variable for all data points, of which a simulation gives "
                "no more than one rank: calibration is for those of each point."
            )


def _with_simulated(batch: Sequence[Any], observed: Trace, simulated: Trace) -> list[Any]:
    arguments = list(batch)
    for name, site in random_sites(observed):
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
    return isinstance(argument, Tensor) and (
        argument is value
        or (argument.shape == value.shape and argument.data_ptr() == value.data_ptr())
    )


def _is_ranked(model_site: Site, guide_site: Site) -> bool:
    """Whether a site is continuous and means the same on both sides.

    What a loss marginalises by its maximum is a path of another start in model and guide.
    """
    return (
        not guide_site["is_observed"]
        and guide_site["value"].is_floating_point()
        and "maximize" not in model_site["infer"]
    )


def _ranks(truth: Tensor, draws: Tensor) -> Tensor:
    """Continuous ranks, of shape `data_points coordinates`."""
    below = (draws < truth).sum(0)
    ranks = (below + torch.rand(truth.shape, device=truth.device)) / (len(draws) + 1)
    return ranks.reshape(len(truth), -1)
