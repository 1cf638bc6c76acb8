"""The marginal likelihood of a run by annealing: what `evaluate --evidence` adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pyro_latents.data.batches import BatchMaker
from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.annealed import annealed_evidence, evidence_interval
from pyro_latents.evaluation.draws import seeded_batches
from pyro_latents.evaluation.metrics import Metrics
from pyro_latents.evaluation.paired import standard_error
from pyro_latents.stories.story import Parts
from pyro_latents.text import did_you_mean

KINDS = ("iwae", "ais", "interval")


@dataclass(frozen=True)
class Annealing:
    """Whether the marginal likelihood is estimated by annealing too, and how.

    Args:
        evidence: ``iwae`` for none, ``ais`` for a lower bound on test data, and
            ``interval`` for that and the width of the interval on simulated data.
        points: Data points to anneal, the first ones, and simulated ones.
        chains: Chains for each data point.
        temperatures: Steps from the guide to the posterior.

    Raises:
        UserError: if one of them makes no sense.
    """

    evidence: str = "iwae"
    points: int = 100
    chains: int = 8
    temperatures: int = 100

    def __post_init__(self) -> None:
        if self.evidence not in KINDS:
            near = did_you_mean(self.evidence, KINDS)
            raise UserError(f"unknown --evidence {self.evidence!r}: {near}")
        check_counts(1, annealed_points=self.points, chains=self.chains)
        check_counts(2, temperatures=self.temperatures)


def annealed_metrics(parts: Parts, batches: BatchMaker, how: Annealing) -> Metrics:
    """Return what annealing says of data points alone (`Story.alone`), in nats.

    ``log_evidence_ais`` is a lower bound in expectation; ``evidence_interval_width`` is how far
    the upper bound is above the lower one on data that are simulated from the model.
    """
    if how.evidence == "iwae":
        return {}
    model, guide, x = points_alone(parts, batches, how.points)
    counts = {"num_chains": how.chains, "num_temperatures": how.temperatures}
    found = annealed_evidence(model, guide, x, **counts)
    metrics: Metrics = {
        "log_evidence_ais": found.log_evidence,
        "log_evidence_ais_se": standard_error(found.log_evidence),
        "log_evidence_ais_points": len(x),
        "log_evidence_ais_chains": how.chains,
        "log_evidence_ais_temperatures": how.temperatures,
        "log_evidence_ais_ess": found.ess,
        "log_evidence_ais_acceptance": found.acceptance,
    }
    if how.evidence == "interval":
        lower, upper = evidence_interval(model, guide, x, **counts)
        width = upper - lower
        metrics["evidence_interval_width"] = width
        metrics["evidence_interval_width_se"] = standard_error(width)
        metrics["evidence_interval_width_worst"] = width.max().item()
    return metrics


def points_alone(
    parts: Parts, batches: BatchMaker, points: int
) -> tuple[Callable, Callable, Tensor]:
    """Return the programs of data points alone, and the first of the data; torch is seeded."""
    batch = next(seeded_batches(batches, points=points, size=points, seed=parts.seed))
    return *parts.story.alone(parts), batch[0][:points]
