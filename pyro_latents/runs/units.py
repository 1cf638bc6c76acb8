"""Metrics and p-values as people read them: with their units, and down to where they go."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

# The first that the name of a metric matches.
UNITS = (
    # In standard deviations of the posterior, a ratio, and a distance of standardised draws.
    (r"reference_(mean_error|spread|energy_distance)$", ""),
    (
        r"elbo|log_likelihood$|log_evidence_ais$|evidence_interval_|reconstruction|kl_|gap$|.*_divergence$|.*_se$",
        "nats per data point",
    ),
    (r".*(accuracy|error|error_rate|above_threshold|separable|_from_(orbit|path))$", "%"),
    (r"posterior_(by|needs)_|reference_coverage_", "%"),
    (r"mse$", "per pixel"),
    (r"seconds_per_step$", "s"),
)
PER_CENT = "%"
# After the name of a metric, that of its standard error.
ERROR = "_se"


def unit_of(name: str) -> str:
    """Return the unit of a metric, nothing where it has none.

    Example:
        >>> unit_of("elbo"), unit_of("k_hat_above_threshold"), unit_of("test_points")
        ('nats per data point', '%', '')
    """
    return next((unit for pattern, unit in UNITS if re.match(pattern, name)), "")


def shown(name: str, value: float | None) -> str:
    """Return the value of a metric as text, without its unit but for the sign of per cent.

    Example:
        >>> shown("elbo", -92.513), shown("k_hat_above_threshold", 0.8333), shown("points", 360)
        ('-92.51', '0.83 %', '360')
    """
    if value is None:
        return ""
    if name.startswith("calibration_p_"):
        return p_value(value)
    if unit_of(name) == PER_CENT:
        return f"{value:.2f} %"
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def row(name: str, value: float | None) -> tuple[str, str, str]:
    """Return a metric as cells of a table: its name, value and unit, per cent with the value."""
    unit = unit_of(name)
    return name, shown(name, value), "" if unit == PER_CENT else unit


def metric_rows(metrics: Mapping[str, float | None]) -> list[tuple[str, str, str]]:
    """Return metrics as cells of a table, each with its standard error where there is one.

    Example:
        >>> metric_rows({"elbo": -92.513, "points": 5, "elbo_se": 0.31})
        [('elbo', '-92.51 ± 0.31', 'nats per data point'), ('points', '5', '')]
    """
    found = []
    for name, value in metrics.items():
        if name.endswith(ERROR) and name.removesuffix(ERROR) in metrics:
            continue
        _, text, unit = row(name, value)
        error = metrics.get(name + ERROR)
        found.append((name, text if error is None else f"{text} ± {shown(name, error)}", unit))
    return found


def with_unit(name: str, value: float | None, error: float | None = None) -> str:
    """Return a metric with its name, value, standard error if there is one, and unit.

    Example:
        >>> with_unit("elbo", -92.513, 0.31)
        'elbo -92.51 +- 0.31 nats per data point'
    """
    if error is not None:
        return f"{name} {shown(name, value)} +- {shown(name, error)} {unit_of(name)}"
    return " ".join(filter(None, row(name, value)))


def floor_of(draws: int) -> float:
    """Return the smallest two-sided p-value that so many draws can show."""
    return min(1.0, 2 / (draws + 1))


def floor_in_words(draws: int) -> str:
    """Return what a table of p-values says of their floor."""
    return (
        f"A p-value of replicates is 2/(draws + 1) = {floor_of(draws):.2g} at least with "
        f"{draws} draws: more draws show smaller ones."
    )


def p_value(value: float, draws: int | None = None) -> str:
    """Return a p-value as text that does not say zero.

    Args:
        value: The p-value.
        draws: Replicates that it was found from, whose floor it cannot go below; None if it was
            not.

    Example:
        >>> p_value(0.25), p_value(1e-5), p_value(2 / 201, draws=200)
        ('0.25', '< 0.001', '<= 0.01')
    """
    if draws is not None and value <= floor_of(draws):
        return f"<= {floor_of(draws):.2g}"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
