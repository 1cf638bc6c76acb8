"""What is measured of a run and kept in its folder: metrics, calibration and pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from pyro_latents.errors import UserError, check_counts
from pyro_latents.evaluation.calibration import band, calibrate, p_values, symmetry_p_values
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.metrics import averages, standard_errors
from pyro_latents.plots import learning_curve, rank_ecdfs, save
from pyro_latents.runs.annealing import Annealing, annealed_metrics
from pyro_latents.runs.opened import Opened

# What a calibration simulates where it is not told how much.
CALIBRATED_POINTS = 500


class Measured(Opened):
    """Measure a run, and draw it."""

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured of the run so far."""
        return self.folder.read_metrics()

    def evaluate(
        self,
        *,
        particles: int = 1000,
        likelihood_points: int = 1000,
        limit_test: int | None = None,
        evidence: str = "iwae",
        annealed_points: int = 100,
        chains: int = 8,
        temperatures: int = 100,
    ) -> dict[str, float]:
        """Measure the run on test data and add the metrics to ``metrics.json``.

        Args:
            particles: Importance samples for the marginal likelihood of a data point.
            likelihood_points: Test points to estimate it for, the first ones.
            limit_test: Test points to use, None for all.
            evidence: ``ais`` to add a lower bound of the marginal likelihood by annealing, and
                ``interval`` for the width of an interval on simulated data as well.
            annealed_points: Test points to anneal, the first ones, and simulated ones.
            chains: Chains of the annealing for each of them.
            temperatures: Steps of the annealing.
        """
        annealing = Annealing(evidence, annealed_points, chains, temperatures)
        # What is there must be readable before minutes are spent on what is added.
        self.folder.read_metrics()
        found = self.measure(
            particles=particles, likelihood_points=likelihood_points, limit_test=limit_test
        )
        test = self.parts.batches("test", limit=limit_test)
        found |= averages(annealed_metrics(self.parts, test, annealing))
        self.folder.add_metrics(found)
        return self.metrics

    def measure(
        self, *, particles: int, likelihood_points: int, limit_test: int | None
    ) -> dict[str, float]:
        """Return what `evaluate` measures, and write nothing; the arguments are its own."""
        check_counts(1, limit_test=limit_test)
        sampling = ImportanceSampling(particles, likelihood_points)
        batches = self.parts.batches("test", limit=limit_test)
        metrics = self.parts.story.metrics(self.parts, batches, sampling)
        return {"test_points": len(batches), **averages(metrics), **standard_errors(metrics)}

    def calibrate(
        self, *, points: int | None = None, draws: int = 200
    ) -> tuple[dict[str, float], Path]:
        """Rank true latent variables under the guide, on data simulated from the model.

        Args:
            points: Data points to simulate, no more than there are test points; None for 500,
                or as many as there are.
            draws: Of the guide for each of them.

        Returns:
            The p-value of uniform ranks by site, and the path of the figure. Both p-values, this
            one and that of ranks that are symmetric (`symmetry_p_values`), are added to
            ``metrics.json``.
        """
        check_counts(2, points=points)
        check_counts(1, draws=draws)
        # What is there must be readable before minutes are spent on what is added.
        self.folder.read_metrics()
        available = len(self.parts.splits.test)
        points = min(CALIBRATED_POINTS, available) if points is None else points
        if points > available:
            raise UserError(
                f"--points {points} are more than the {available} test points, whose classes and "
                "sets the simulated ones share: give fewer."
            )
        torch.manual_seed(self.parts.seed)
        batch = self.parts.first_batch("test", size=points)
        ranks = calibrate(self.parts.model, self.parts.guide, *batch, num_draws=draws)
        found = p_values(ranks)
        metrics = {f"calibration_p_{site}": p for site, p in found.items()}
        for site, p in symmetry_p_values(ranks).items():
            metrics[f"calibration_p_symmetric_{site}"] = p
        self.folder.add_metrics(metrics)
        figure = rank_ecdfs(ranks, {site: band(*r.shape) for site, r in ranks.items()})
        return found, save(figure, self.folder.figures_path / "calibration.png")

    def plot(self, folder: str | Path | None = None) -> list[Path]:
        """Draw the learning curve and the story's figures; return the pictures' paths.

        Args:
            folder: Where to; ``figures`` in the run's own if not given.
        """
        history = self.folder.read_history()
        torch.manual_seed(self.parts.seed)
        figures = {**self.parts.story.figures(self.parts), "history": learning_curve(history)}
        where = self.folder.figures_path if folder is None else Path(folder)
        return [save(figure, where / f"{name}.png") for name, figure in figures.items()]
