"""Reference posteriors: chains for each data point that agree, for guides to be scored against.

References:
    Rank-Normalization, Folding, and Localization: An Improved R-hat (Vehtari et al., 2021),
    https://arxiv.org/abs/1903.08008
    Energy Statistics (Szekely and Rizzo, 2013), J. Stat. Planning and Inference 143(8)
    posteriordb (Magnusson et al., 2024), https://arxiv.org/abs/2407.04967
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.annealed import annealing, check_annealing
from pyro_latents.evaluation.draws import several
from pyro_latents.programs import evaluation_mode, local_parameters

# Chains disagree above it. Vehtari et al. ask for 1.01 of chains that are run until it is reached.
LARGEST_R_HAT = 1.05
# Draws that a mean and a central interval are to be worth, of every coordinate.
SMALLEST_ESS = 100
# Moves at the posterior before a draw is kept, as a share of those that are.
WARM_UP = 0.25
# Draws of guide and reference whose distances are taken, for bounded memory; images at a time.
ENERGY_DRAWS, ENERGY_ROWS = 400, 20
LEVELS = (50, 90)
# Of a guide that is a point, in squared standard deviations of the reference.
SMALLEST_VARIANCE = 1e-9


@dataclass(frozen=True)
class Reference:
    """Draws of the posterior of each data point, and whether they can be trusted.

    Args:
        draws: Of each latent site by name, of shape `chains draws batch ...`.
        r_hat: Split r-hat of each coordinate of a site, of shape `batch ...`.
        ess: Effective sample sizes, likewise.
        acceptance: The mean probability of acceptance, of shape `batch`.
    """

    draws: dict[str, Tensor]
    r_hat: dict[str, Tensor]
    ess: dict[str, Tensor]
    acceptance: Tensor

    @property
    def is_agreed(self) -> Tensor:
        """Whether the chains of each data point agree, `batch`; where not, it has no reference."""
        fine = [
            (self.r_hat[name] <= LARGEST_R_HAT) & (self.ess[name] >= SMALLEST_ESS)
            for name in self.draws
        ]
        return torch.stack([site.reshape(len(site), -1).all(1) for site in fine]).all(0)


@dataclass(frozen=True)
class Score:
    """How near draws of a guide are to reference posteriors, for each data point that has one.

    Args:
        mean_error: Root mean square over the coordinates of how far the guide's means are off, in
            standard deviations of the reference.
        spread: The guide's standard deviation over the reference's, the geometric mean over the
            coordinates.
        coverage: The share of the reference within the guide's central intervals, averaged over
            the coordinates, by the level of the interval in per cent.
        energy_distance: Of the joint distribution of all sites, in standard deviations of the
            reference: zero where the two are the same. It sees where the guide is more than how
            wide it is.
        divergence: `KL(q || p)` of normals with the means and covariances of all sites, in nats,
            to stand beside the gap of the bound, the divergence of the guide itself. Somewhat
            high where draws are few for the number of coordinates, for all guides alike.
    """

    mean_error: Tensor
    spread: Tensor
    coverage: dict[int, Tensor]
    energy_distance: Tensor
    divergence: Tensor

    def by_name(self) -> dict[str, Tensor]:
        """Return the figures under the names that they have among the metrics of a run."""
        return {
            "reference_mean_error": self.mean_error,
            "reference_spread": self.spread,
            **{f"reference_coverage_{level}": 100 * v for level, v in self.coverage.items()},
            "reference_energy_distance": self.energy_distance,
            "reference_divergence": self.divergence,
        }


def reference_posterior(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num_chains: int = 8,
    num_draws: int = 200,
    num_temperatures: int = 100,
) -> Reference:
    """Draw from the posterior of each data point by Hamiltonian Monte Carlo.

    Chains begin with draws of the guide, which are annealed to the posterior
    (`annealed_evidence`); there they move on with the step sizes and metrics that were found.

    Args:
        model: The generative model.
        guide: Where chains begin.
        *batch: The arguments of both, as in `annealed_evidence`.
        num_chains: Chains for each data point, at least two.
        num_draws: Draws of each chain, at least four.
        num_temperatures: Steps of the annealing.

    Raises:
        UserError: as `annealed_evidence` does.
    """
    check_annealing(num_chains, num_temperatures)
    check_counts(2, chains=num_chains)
    check_counts(4, draws=num_draws)
    warm_up, found = int(WARM_UP * num_draws), []
    moves = num_temperatures + warm_up + num_draws
    with annealing(model, guide, batch, num_chains, num_temperatures, moves) as (parts, prepared):
        for part in parts:
            path = prepared(part)
            _, point, _ = path.forward()
            kept, accepted = [], []
            for move in range(-warm_up, num_draws):
                point, probability = path.move(point, num_temperatures)
                if move >= 0:
                    kept.append(path.kernel.target.values(point.position))
                    accepted.append(probability.mean(0))
            found.append((_stacked(kept), torch.stack(accepted).mean(0)))
    draws = {name: torch.cat([d[name] for d, _ in found], 2) for name in found[0][0]}
    return diagnosed(draws, torch.cat([accepted for _, accepted in found]))


def diagnosed(draws: Mapping[str, Tensor], acceptance: Tensor) -> Reference:
    """Return draws `chains draws batch ...` by site with ArviZ's split r-hat and sample sizes."""
    import arviz
    import xarray

    arrays = {name: value.double().cpu().numpy() for name, value in draws.items()}
    data = xarray.Dataset(
        {
            name: (["chain", "draw", *(f"{name}_{i}" for i in range(value.ndim - 2))], value)
            for name, value in arrays.items()
        }
    )
    # A coordinate that never moves has none, and is told by a value that is not a number.
    r_hat, ess = arviz.rhat(data, method="split"), arviz.ess(data, method="bulk")
    device = acceptance.device
    return Reference(
        dict(draws),
        {name: torch.as_tensor(np.asarray(r_hat[name])).to(device) for name in arrays},
        {name: torch.as_tensor(np.asarray(ess[name])).to(device) for name in arrays},
        acceptance,
    )


def score_against(
    reference: Reference, model: Callable, guide: Callable, *batch: Any, draws: int = 1000
) -> Score:
    """Score draws of a guide against the reference posteriors of the same data points.

    Args:
        reference: Of these data points under this model.
        model: The model that the guide is of.
        guide: The guide.
        *batch: The arguments of both.
        draws: Of the guide for each data point.

    Raises:
        UserError: if no data point has a reference, the data points are not as many, or the guide
            does not draw a site of the reference.
    """
    check_counts(2, draws=draws)
    agreed = reference.is_agreed
    if len(agreed) != len(batch[0]):
        raise UserError(
            f"the reference is of {len(agreed)} data points, and {len(batch[0])} are given: give "
            "those that it was made for."
        )
    if not bool(agreed.any()):
        raise UserError("no data point has a reference, as no chains agree: draw more.")
    programs = (model, guide)
    with torch.no_grad(), local_parameters(*programs), evaluation_mode(*programs):
        trace = several(guide, draws, *batch)
    missing = [name for name in reference.draws if name not in trace.nodes]
    if missing:
        raise UserError(f"the guide does not draw {missing[0]!r}, which the reference has.")
    mine: dict[str, Any] = {name: trace.nodes[name]["value"] for name in reference.draws}
    theirs = {name: value.flatten(0, 1) for name, value in reference.draws.items()}
    return _score(_flat(mine)[:, agreed], _flat(theirs)[:, agreed])


def _score(mine: Tensor, theirs: Tensor) -> Score:
    """Compare draws of a guide, `draws batch dim`, with those of a reference."""
    centre, scale = theirs.mean(0), theirs.std(0)
    mine, theirs = (mine - centre) / scale, (theirs - centre) / scale
    coverage = {}
    for level in LEVELS:
        low, high = (mine.quantile(0.5 + side * level / 200, 0) for side in (-1, 1))
        coverage[level] = ((theirs >= low) & (theirs <= high)).double().mean((0, 2))
    return Score(
        mean_error=mine.mean(0).square().mean(-1).sqrt(),
        spread=mine.std(0).log().mean(-1).exp(),
        coverage=coverage,
        energy_distance=_energy_distance(_thinned(mine), _thinned(theirs)),
        divergence=_divergence(mine, theirs),
    )


def _divergence(mine: Tensor, theirs: Tensor) -> Tensor:
    """The divergence of normals with the moments of draws, of shape `batch`."""
    q, p = (
        MultivariateNormal(draws.mean(0), _covariance(draws), validate_args=False)
        for draws in (mine, theirs)
    )
    return kl_divergence(q, p)


def _covariance(draws: Tensor) -> Tensor:
    """Of draws in units near one, `batch dim dim`; where one has no width it has a little."""
    apart = (draws - draws.mean(0)).transpose(0, 1)
    small = SMALLEST_VARIANCE * torch.eye(draws.shape[-1]).to(draws)
    return apart.transpose(1, 2) @ apart / (len(draws) - 1) + small


def _energy_distance(mine: Tensor, theirs: Tensor) -> Tensor:
    """Twice the mean distance across less those within, without bias, of shape `batch`."""
    mine, theirs = mine.transpose(0, 1), theirs.transpose(0, 1)
    found = []
    for some, others in zip(mine.split(ENERGY_ROWS), theirs.split(ENERGY_ROWS), strict=True):
        across = torch.cdist(some, others).mean((1, 2))
        found.append(2 * across - _within(some) - _within(others))
    return torch.cat(found)


def _within(draws: Tensor) -> Tensor:
    """The mean distance of two different draws, `batch draws dim`, of shape `batch`."""
    count = draws.shape[1]
    return torch.cdist(draws, draws).sum((1, 2)) / (count * (count - 1))


def _thinned(draws: Tensor) -> Tensor:
    """Draws that are spread over all of them, as chains lie one after the other."""
    at = torch.linspace(0, len(draws) - 1, min(len(draws), ENERGY_DRAWS), device=draws.device)
    return draws[at.round().long()]


def _flat(values: Mapping[str, Tensor]) -> Tensor:
    """Sites side by side, `draws batch dim`."""
    return torch.cat([v.reshape(*v.shape[:2], -1).double() for v in values.values()], -1)


def _stacked(kept: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Values of several moves as draws, `chains draws batch ...`."""
    return {name: torch.stack([values[name] for values in kept], 1) for name in kept[0]}
