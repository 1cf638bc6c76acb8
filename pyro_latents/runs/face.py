"""What a person does with a run in Python, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from pyro_latents.checks.statistics import Statistic
from pyro_latents.data.points import in_words
from pyro_latents.errors import UserError
from pyro_latents.runs.checking import check
from pyro_latents.runs.comparison import Comparison, compare
from pyro_latents.runs.export import write_export
from pyro_latents.runs.on_points import OnPoints
from pyro_latents.runs.opened import Opened
from pyro_latents.runs.report import report
from pyro_latents.runs.units import with_unit
from pyro_latents.training.report import summary

# Of the metrics, what is told of a run first.
TOLD = (
    "elbo",
    "log_likelihood",
    "mse",
    "knn_accuracy",
    "svm_accuracy",
    "error_rate",
    "distance_error",
    "k_hat_above_threshold",
)


class Face(OnPoints):
    """Judge, compare, report and export a run, by functions that take one."""

    def check(
        self,
        *,
        images: int = 1000,
        draws: int = 200,
        seed: int = 0,
        statistics: Mapping[str, Statistic] | None = None,
    ) -> list[Path]:
        """Check model and guide by predictive draws; see `pyro_latents.runs.checking.check`."""
        return check(self, images=images, draws=draws, seed=seed, statistics=statistics)

    def compare(self, *others: Opened, **options: Any) -> Comparison:
        """Measure this run and others on the same data; see `runs.comparison.compare`."""
        return compare([self, *others], **options)

    def report(self, out: str | Path | None = None) -> Path:
        """Write one self-contained page on the run, in which its story moves.

        Args:
            out: The page's path; ``report.html`` in the run's folder if not given. With one,
                nothing is written into that folder.

        Returns:
            The page's path.
        """
        return report(self, out)

    def export(self, out: str | Path, *, half: bool = False) -> Path:
        """Write the trained model and guide into a folder of their own, and return its path.

        It has the configuration, the parameters as safetensors and what was measured, and
        `zoo.open_run` opens it anywhere; what a training needs to be resumed is left out.

        Args:
            out: The folder, which is made.
            half: Whether to keep 16 bits of each number.
        """
        return write_export(self.folder.of_training(), Path(out), half=half)

    def __repr__(self) -> str:
        lines = [f"{name:<9}{text}" for name, text in self._told()]
        return "\n".join([f"Run of {self.config['recipe']}", *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._told()
        )
        title = escape(f"Run of {self.config['recipe']}")
        return f"<table><caption>{title}</caption>{rows}</table>"

    def _told(self) -> Iterator[tuple[str, str]]:
        """What there is to say of a run, with what it is about."""
        story = self.story
        yield "story", f"{story.name} ({story.paper})"
        yield "data", f"{self.told_data}, {in_words(story.x_shape)}"
        yield "guide", self.config["guide"]
        try:
            yield "trained", summary(self.folder.read_history()[-1])
        except UserError:
            yield "trained", "not known"
        metrics = self.metrics
        told = [
            with_unit(name, metrics[name], metrics.get(f"{name}_se"))
            for name in TOLD
            if name in metrics
        ]
        yield "figures", "; ".join(told) or "none yet: run.evaluate()"
        yield "folder", str(self.path)
