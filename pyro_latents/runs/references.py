"""Reference posteriors of a run's model, which `compare` scores guides of that model against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pyro_latents.checks.reference_io import write_reference
from pyro_latents.errors import check_counts
from pyro_latents.evaluation.reference import Reference, reference_posterior
from pyro_latents.runs.annealing import points_alone
from pyro_latents.runs.folder import REFERENCE
from pyro_latents.runs.opened import Opened
from pyro_latents.runs.trained_model import TrainedModel


@dataclass(frozen=True)
class Written:
    """Reference posteriors that are kept.

    Args:
        reference: The draws, and whether they can be trusted.
        path: Where they are.
    """

    reference: Reference
    path: Path

    def as_rows(self) -> list[tuple[str, str]]:
        """Return what is to be said of them, as the cells of a table."""
        agreed, found = self.reference.is_agreed, self.reference
        without = torch.nonzero(~agreed)[:, 0].tolist()
        chains, draws = next(iter(found.draws.values())).shape[:2]
        return [
            ("images", str(len(agreed))),
            ("with a reference", str(int(agreed.sum()))),
            ("without, as their chains disagree", ", ".join(map(str, without)) or "none"),
            ("chains and draws of each", f"{chains} x {draws}"),
            *(
                (f"{name}: largest r-hat, smallest sample size", _worst(found, name))
                for name in found.draws
            ),
            ("accepted", f"{100 * found.acceptance.mean():.0f} %"),
        ]


def reference(
    run: Opened, *, images: int = 20, chains: int = 8, draws: int = 200, temperatures: int = 100
) -> Written:
    """Draw from the posteriors of test images, and keep the draws in ``reference.nc`` of a run.

    Args:
        run: Its model, and its guide to begin with.
        images: The first ones of the test data.
        chains: Chains for each of them.
        draws: Draws of each chain.
        temperatures: Steps that chains are annealed in before.

    Raises:
        UserError: if a number makes no sense, or the model has a site that no chain can move on.
    """
    check_counts(1, images=images)
    parts = run.parts
    model, guide, x = points_alone(parts, parts.batches("test"), images)
    found = reference_posterior(
        model, guide, x, num_chains=chains, num_draws=draws, num_temperatures=temperatures
    )
    about = {"recipe": run.config["recipe"], "model": TrainedModel.of(run.folder).hash}
    return Written(found, write_reference(found, x, run.path / REFERENCE, about))


def _worst(found: Reference, name: str) -> str:
    return f"{found.r_hat[name].max():.3f}, {found.ess[name].min():.0f}"
