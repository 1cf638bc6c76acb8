"""Simulation-based calibration of an amortised guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.evaluation.draws import several
from pyro_latents.programs import local_parameters, random_sites

# The probability of a band, and of what it is simulated.
LEVEL, SIMULATIONS = 0.95, 5_000
# Of a series that converges the slower the larger a value is; beyond nine it is zero.
TERMS = 50


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
        arguments, run = simulated(model, batch, "calibration")
        drawn = several(guide, num_draws, *arguments)
    truth, ranks = dict(random_sites(run)), {}
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


def symmetry_p_values(ranks: Mapping[str, Tensor]) -> dict[str, float]:
    r"""Return for each site the p-value of ranks that are symmetric about one half.

    A guide that is too narrow or too wide has symmetric ranks all the same; one whose centre is
    off in one direction has not. So this test tells a bias of the guide's centre from a wrong
    spread, which `p_values` alone does not (the VSBC diagnostic of Yao et al.).

    The statistic is theirs, the largest distance of the distribution functions of `p` and of
    `1 - p`. These two samples are one, so that the two-sample Kolmogorov-Smirnov test, which they
    take, would reject too often; with signs that are equally likely the statistic is the largest
    absolute value of a random walk (Butler, 1969),

    .. math:: P\Big(\sup_{t \le 1} |W_t| \le d\Big) = \frac{4}{\pi} \sum_{k \ge 0}
              \frac{(-1)^k}{2 k + 1} e^{-(2 k + 1)^2 \pi^2 / (8 d^2)}.

    The p-value is the smallest one of a coordinate, corrected for the number of coordinates
    (Bonferroni).

    References:
        Yes, but Did It Work?: Evaluating Variational Inference (Yao et al., 2018),
        https://arxiv.org/abs/1802.02538
        A Test for Symmetry Using the Sample Distribution Function (Butler, 1969), Annals of
        Mathematical Statistics 40(6)
    """
    return {name: min(1.0, r.shape[1] * _asymmetry(r).min().item()) for name, r in ranks.items()}


def _asymmetry(ranks: Tensor) -> Tensor:
    """The p-value of each coordinate, of shape `coordinates`."""
    away = ranks.double().cpu() - 0.5
    order = away.abs().argsort(0, descending=True)
    walk = away.sign().gather(0, order).cumsum(0)
    furthest = walk.abs().amax(0) / len(away) ** 0.5
    k = torch.arange(TERMS, dtype=torch.double)[:, None]
    odd = 2 * k + 1
    exponents = -((odd * torch.pi / furthest) ** 2) / 8
    below = 4 / torch.pi * ((-1) ** k / odd * exponents.exp()).sum(0)
    return (1 - below).clamp(0.0, 1.0)


def band(count: int, coordinates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the distribution functions of uniform ranks stay with a probability of .95.

    By arviz-stats where it is installed, whose band is as narrow at the ends as ranks are there;
    else it is as wide as the Kolmogorov-Smirnov distance. Both are corrected for the number of
    coordinates (Bonferroni).

    Args:
        count: The number of ranks of a coordinate.
        coordinates: The number of functions that are to stay in it, all of them.

    Returns:
        Points in (0, 1), and the lower and upper end of the band at each.

    References:
        Graphical Test for Discrete Uniformity and its Applications in Goodness of Fit Evaluation
        and Multiple Sample Comparison (Säilynoja et al., 2022), https://arxiv.org/abs/2103.10522
    """
    level = 1 - (1 - LEVEL) / coordinates
    if find_spec("arviz_stats") is not None:
        ecdf = import_module("arviz_stats.ecdf_utils")
        uniform = torch.arange(1, count + 1).numpy() / count
        points, _, low, high = ecdf.ecdf_pit(uniform, level, SIMULATIONS)
        return torch.as_tensor(points), torch.as_tensor(low), torch.as_tensor(high)
    return kolmogorov_band(count, level)


def kolmogorov_band(count: int, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return a `band` of one width, that of the Kolmogorov-Smirnov distance at a level."""
    from scipy.stats import kstwo

    points = torch.arange(1, count, dtype=torch.double) / count
    width = float(kstwo.ppf(level, count))
    return points, (points - width).clamp_min(0.0), (points + width).clamp_max(1.0)


def simulated(model: Callable, batch: Sequence[Any], what: str) -> tuple[list[Any], Trace]:
    """Return arguments with data that are drawn from a model, and the run that drew them.

    Args:
        model: The generative model.
        batch: Its arguments, of which those that it observes are replaced.
        what: Needs the data, for the message where there are none.
    """
    try:
        observed = poutine.trace(model).get_trace(*batch)
        drawn = poutine.trace(poutine.uncondition(model)).get_trace(*batch)
    except NotImplementedError as error:
        raise UserError(
            f"the model's prior cannot be drawn from, as {what} must: choose a proper one."
        ) from error
    return _with_simulated(batch, observed, drawn), drawn


def _with_simulated(batch: Sequence[Any], observed: Trace, drawn: Trace) -> list[Any]:
    arguments = list(batch)
    for name, site in random_sites(observed):
        if not site["cond_indep_stack"]:
            raise UserError(
                f"site {name!r} is one variable for all data points, of which a simulation gives "
                "no more than one rank: calibration is for those of each point."
            )
        made = site["infer"].get("is_auxiliary") or site["infer"].get("_deterministic")
        if made or not site["is_observed"]:
            continue
        found = [i for i, argument in enumerate(batch) if _is_same(argument, site["value"])]
        if not found:
            raise UserError(
                f"site {name!r} is observed, but is none of the model's arguments: calibration "
                "has to put simulated data in its place."
            )
        for i in found:
            arguments[i] = drawn.nodes[name]["value"]
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
