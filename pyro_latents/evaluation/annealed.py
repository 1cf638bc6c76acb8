r"""The marginal likelihood of each data point by annealing from the guide to the posterior.

.. math::
    f_\beta(z) = q(z | x)^{1 - \beta} \, p(x, z)^\beta, \qquad
    \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{q(z_{t-1} | x)}

A chain begins with a draw of the guide, and moves by Hamiltonian Monte Carlo between the
temperatures: :math:`E[w] = p(x)`, so that the logarithm of a mean of weights is a lower bound in
expectation. Chains that go the other way, from a draw of the posterior, give an upper one; such
draws are there for data that are simulated from the model.

References:
    Annealed Importance Sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
    Measuring the Reliability of MCMC Inference with Bidirectional Monte Carlo
    (Grosse, Ancha, Roy, 2016), https://arxiv.org/abs/1606.02275
    On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017),
    https://arxiv.org/abs/1611.04273
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import log
from typing import Any, NamedTuple

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.evaluation.calibration import simulated
from pyro_latents.evaluation.evidence import data_plate_dim, effective_sample_size, rows_of
from pyro_latents.evaluation.paths import PARTING, Path, adapted, adapting_moves
from pyro_latents.evaluation.target import Target
from pyro_latents.programs import evaluation_mode, local_parameters
from pyro_latents.progress import bar, on_terminal

# Chains that move at a time: they bound the memory, and fill an accelerator.
LANES, LANES_OF_ACCELERATOR = 800, 20_000
# Data points that the data plate is looked for with.
CHECKED_POINTS = 4


class AnnealedEvidence(NamedTuple):
    """What annealing says of each data point.

    Args:
        log_evidence: The estimate of `log p(x)` in nats, of shape `batch`: a lower bound in
            expectation.
        ess: The effective number of chains, of shape `batch`.
        acceptance: The mean probability that a trajectory is accepted, of shape `batch`.
    """

    log_evidence: Tensor
    ess: Tensor
    acceptance: Tensor


class EvidenceInterval(NamedTuple):
    """Bounds of the evidence of each simulated data point, each in expectation.

    Args:
        lower: From the guide to the posterior, in nats, of shape `batch`.
        upper: From the posterior to the guide.
    """

    lower: Tensor
    upper: Tensor


def annealed_evidence(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num_chains: int = 16,
    num_temperatures: int = 100,
) -> AnnealedEvidence:
    """Estimate the marginal likelihood of each data point by annealed importance sampling.

    Any model and guide whose data plate is the outermost one. Their continuous latent sites have
    densities, on supports that a bijection of `torch.distributions` lays on the real line;
    discrete ones have finite supports and are summed out.

    Args:
        model: The generative model.
        guide: The guide, where chains begin.
        *batch: The arguments of both; the first is a tensor of shape `batch ...`, and what is as
            long is one row a data point.
        num_chains: Chains for each data point.
        num_temperatures: Steps from the guide to the posterior.

    Raises:
        UserError: if a site cannot be annealed, the guide does not fit, or a number is no count.

    Example:
        >>> annealed_evidence(run.parts.model, run.parts.guide, x)  # doctest: +SKIP
    """
    check_annealing(num_chains, num_temperatures)
    found = []
    moves = num_temperatures
    with annealing(model, guide, batch, num_chains, num_temperatures, moves) as (parts, prepared):
        for part in parts:
            log_weights, _, acceptance = prepared(part).forward()
            log_evidence = log_weights.logsumexp(0) - log(num_chains)
            found.append((log_evidence, effective_sample_size(log_weights), acceptance))
    return AnnealedEvidence(*joined(found))


def evidence_interval(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num_chains: int = 16,
    num_temperatures: int = 100,
) -> EvidenceInterval:
    """Bound the marginal likelihood of data simulated from the model from both sides.

    How far apart the bounds are tells how good `annealed_evidence` is on data such as the model's.

    Args:
        model: The generative model, from whose prior the data are drawn.
        guide: As in `annealed_evidence`.
        *batch: The arguments of both. Each that the model observes is replaced by simulated data
            of its shape; anything else is kept.
        num_chains: As in `annealed_evidence`; of each direction.
        num_temperatures: As there.

    Raises:
        UserError: as there; or if the model's prior cannot be drawn from, or a site that it
            observes is none of the arguments.
    """
    check_annealing(num_chains, num_temperatures)
    found = []
    moves = 2 * num_temperatures + PARTING
    with annealing(model, guide, batch, num_chains, num_temperatures, moves) as (parts, prepared):
        for part in parts:
            arguments, truth = simulated(model, part, "an interval")
            path = prepared(arguments)
            lower = path.forward()[0].logsumexp(0) - log(num_chains)
            upper = log(num_chains) - (-path.backward(truth)).logsumexp(0)
            found.append((lower, upper))
    return EvidenceInterval(*joined(found))


@contextmanager
def annealing(
    model: Callable,
    guide: Callable,
    batch: tuple[Any, ...],
    num_chains: int,
    num_temperatures: int,
    moves: int,
) -> Iterator[tuple[list[list[Any]], Callable[[list[Any]], Path]]]:
    """Run programs without gradients, dropout or the global parameters.

    Yields:
        The arguments of some data points at a time, and what adapts a path for some of them. A
        bar shows for each of the parts ``moves`` beside those of the adaptation.
    """
    size, whole = len(batch[0]), isinstance(guide, AutoGuide)
    lanes = LANES if batch[0].device.type == "cpu" else LANES_OF_ACCELERATOR
    # Pyro's automatic guides are for the batch that they have seen, and for no part of it.
    num_parts = 1 if whole else -(-size * num_chains // lanes)
    rows = -(-size // min(num_parts, size))
    parts = [rows_of(batch, slice(i, i + rows)) for i in range(0, size, rows)]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(local_parameters(model, guide))
        stack.enter_context(evaluation_mode(model, guide))
        few = rows_of(batch, slice(None if whole else CHECKED_POINTS))
        plate_dim = data_plate_dim(model, guide, few)
        total = len(parts) * (moves + adapting_moves(num_temperatures))
        shown = stack.enter_context(bar(None, "annealing", total=total, disable=not on_terminal()))

        def prepared(part: list[Any]) -> Path:
            target = Target(model, guide, part, num_chains, plate_dim)
            return adapted(target, num_temperatures, shown.update)

        yield parts, prepared


def joined(parts: Sequence[tuple[Tensor, ...]]) -> Iterator[Tensor]:
    """Concatenate what was found of parts of the data, in torch's default number format."""
    for values in zip(*parts, strict=True):
        yield torch.cat(values).to(torch.get_default_dtype())


def check_annealing(num_chains: int, num_temperatures: int) -> None:
    """Raise a `UserError` unless there is a chain, and two temperatures."""
    if not num_chains >= 1:
        raise UserError(f"num_chains must be at least 1; got {num_chains}.")
    if not num_temperatures >= 2:
        raise UserError(f"num_temperatures must be at least 2; got {num_temperatures}.")
