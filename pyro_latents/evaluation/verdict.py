"""Draws of the posterior of each data point, by the cheapest way that its diagnostics allow.

References:
    Amortized Bayesian Workflow (Li et al., 2024), https://arxiv.org/abs/2409.04332
    Pareto Smoothed Importance Sampling (Vehtari et al., 2024), JMLR 25(72)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_latents.errors import check_counts
from pyro_latents.evaluation.evidence import (
    CHUNK,
    data_plate_dim,
    effective_sample_size,
    rows_of,
    weighted,
)
from pyro_latents.evaluation.pareto import largest_reliable_k, pareto_smoothed
from pyro_latents.evaluation.reference import reference_posterior
from pyro_latents.programs import evaluation_mode, latent_sites, local_parameters

# What the draws of a data point are, by its number.
KINDS = ("guide", "smoothed", "chains", "none")
GUIDE, SMOOTHED, CHAINS, NONE = range(4)
# The least effective sample size of weights, as a share of the draws, of which the guide's own
# draws may stay as they are: its divergence from the posterior is below 1 / .95 - 1 = .05 nats.
AS_THEY_ARE = 0.95
# That of weights which draws are chosen by: as many as a reference has at the least.
SMALLEST_ESS = 100
# Fewer have no k-hat, and fewer of a chain no r-hat.
FEWEST_DRAWS, FEWEST_OF_CHAIN = 25, 4
# Chains that disagree are run again, each time twice as long.
ROUNDS = 3


@dataclass(frozen=True)
class TrustedDraws:
    """Draws of the posterior of each data point, and what they are.

    Args:
        draws: Of each latent site by name, of shape `draws batch ...`.
        kinds: For each data point the place in `KINDS`, of shape `batch`: draws of the ``guide``
            as they are, chosen among them by ``smoothed`` weights, of ``chains`` that agree, or of
            chains that do not: ``none`` to be trusted.
        k_hat: The Pareto shape of the guide's importance weights, of shape `batch`.
    """

    draws: dict[str, Tensor]
    kinds: Tensor
    k_hat: Tensor

    @property
    def shares(self) -> dict[str, float]:
        """The share of the data points whose draws are of each kind, in per cent."""
        counts = torch.bincount(self.kinds, minlength=len(KINDS))
        return {
            kind: 100 * count / len(self.kinds)
            for kind, count in zip(KINDS, counts.tolist(), strict=True)
        }


def verdicts(k_hat: Tensor, ess: Tensor, draws: int) -> Tensor:
    """Return what the importance weights of so many draws allow, `batch`, as numbers of `KINDS`.

    Where they allow nothing it is ``chains``.
    """
    reliable = k_hat <= largest_reliable_k(draws)
    chosen = reliable & (ess >= min(SMALLEST_ESS, AS_THEY_ARE * draws))
    kinds = torch.where(chosen, SMOOTHED, CHAINS)
    return torch.where(reliable & (ess >= AS_THEY_ARE * draws), GUIDE, kinds)


def trusted_posterior(
    model: Callable,
    guide: Callable,
    *batch: Any,
    draws: int = 1000,
    num_chains: int = 8,
    num_temperatures: int = 100,
) -> TrustedDraws:
    """Draw from the posterior of each data point, and say how.

    The draws are the guide's where its importance weights are nearly even, chosen among the
    guide's by Pareto-smoothed weights where k-hat allows, and those of chains that begin with the
    guide's and are annealed to the posterior where not. Chains that disagree are run for longer; a
    data point whose chains never agree has the verdict that its draws are not to be trusted. What
    no draw of the guide comes near, a mode that it misses whole, none of the diagnostics sees.

    Args:
        model: The generative model; its continuous latent sites are drawn.
        guide: The guide.
        *batch: The arguments of both; the first is a tensor of shape `batch ...`, and what is as
            long is one row a data point.
        draws: Draws for each data point.
        num_chains: Chains for each data point that needs them.
        num_temperatures: Steps of the annealing.

    Raises:
        UserError: if there are too few draws for k-hat, or chains cannot be run for the model.

    Example:
        >>> found = trusted_posterior(run.parts.model, run.parts.guide, x)  # doctest: +SKIP
        >>> found.shares  # doctest: +SKIP
        {'guide': 12.0, 'smoothed': 31.0, 'chains': 57.0, 'none': 0.0}
    """
    check_counts(FEWEST_DRAWS, draws=draws)
    check_counts(2, chains=num_chains)
    log_weights, found = _weighted_draws(model, guide, batch, draws)
    smooth, k_hat = pareto_smoothed(log_weights)
    kinds = verdicts(k_hat, effective_sample_size(smooth), draws)
    chosen = torch.multinomial(smooth.exp().T, draws, replacement=True).T
    for name, values in found.items():
        at = chosen.reshape(*chosen.shape, *[1] * (values.dim() - 2)).expand_as(values)
        is_smoothed = (kinds == SMOOTHED).reshape(1, -1, *[1] * (values.dim() - 2))
        found[name] = torch.where(is_smoothed, values.gather(0, at), values)
    rows, length = (kinds == CHAINS).nonzero()[:, 0], max(FEWEST_OF_CHAIN, -(-draws // num_chains))
    for _ in range(ROUNDS):
        if not len(rows):
            break
        counts = {"num_chains": num_chains, "num_temperatures": num_temperatures}
        part = rows_of(batch, rows)
        reference = reference_posterior(model, guide, *part, num_draws=length, **counts)
        for name, values in reference.draws.items():
            flat = values.flatten(0, 1)
            at = torch.linspace(0, len(flat) - 1, draws, device=flat.device).round().long()
            found[name][:, rows] = flat[at].to(found[name])
        kinds[rows] = torch.where(reference.is_agreed.to(kinds.device), CHAINS, NONE)
        rows, length = (kinds == NONE).nonzero()[:, 0], 2 * length
    return TrustedDraws(found, kinds, k_hat)


@torch.no_grad()
def _weighted_draws(
    model: Callable, guide: Callable, batch: tuple[Any, ...], draws: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draws of a guide, and their log importance weights of shape `draws batch`."""
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    with local_parameters(model, guide), evaluation_mode(model, guide):
        plate_dim = data_plate_dim(model, guide, list(batch))
        several = max(1, CHUNK // len(batch[0]))
        for done in range(0, draws, several):
            count = min(several, draws - done)
            weights, guide_trace = weighted(model, guide, list(batch), plate_dim, count)
            values = {n: s["value"] for n, s in latent_sites(guide_trace)}
            parts.append((weights, {n: v for n, v in values.items() if v.is_floating_point()}))
    found = {name: torch.cat([values[name] for _, values in parts]) for name in parts[0][1]}
    return torch.cat([weights for weights, _ in parts]), found
