"""Checks as ArviZ data: an `InferenceData`, or a `DataTree` from ArviZ 1 on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_latents.checks.predictive import Replicates
from pyro_latents.files import write_atomically

ATTRIBUTES = {
    "inference_library": "pyro",
    "inference": "variational (SVI)",
    "comment": "independent draws of an amortised guide, not of a Markov chain: one chain, and "
    "no r-hat or effective sample size of chains",
}
HALVES = (torch.bfloat16, torch.float16)
# Draws of latent sites that are kept; statistics are kept for all.
POSTERIOR_DRAWS = 50


def to_arviz(found: Replicates, prior: Mapping[str, Tensor] | None = None) -> Any:
    """Return a check, and statistics of draws from the prior, in ArviZ's groups.

    Statistics are the variables of ``posterior_predictive``, ``prior_predictive`` and
    ``observed_data``; the guide's draws those of ``posterior``. ``sample_stats`` has a value for
    each draw and data point: ``log_conditional``, the log-density of the observed site given the
    draw, and ``log_weight``; and ``k_hat`` for each data point. Some data points and replicates of
    each are in ``constant_data``.

    ``log_likelihood`` is what `arviz.loo` and `arviz.compare` take it to be: the marginal
    `log p(x)` of a data point, see `log_evidence_without_draws`. It is there where draws have
    weights.
    """
    latents = {name: value[:POSTERIOR_DRAWS] for name, value in found.latents.items()}
    groups = {
        "posterior": _draws(latents, "data_point"),
        "posterior_predictive": _draws(found.replicated, "data_point"),
        "observed_data": _dataset(found.observed, "data_point"),
    }
    if prior is not None:
        groups["prior_predictive"] = _draws(prior)
    if found.examples is not None:
        observed, replicated = found.examples
        shown = _dataset({"x": observed}, "shown")
        groups["constant_data"] = shown.merge(
            _dataset({"x_replicated": replicated}, "replicate", "shown")
        )
    of_draws = {"log_conditional": found.log_likelihood, "log_weight": found.log_weight}
    stats = {name: value for name, value in of_draws.items() if value is not None}
    if stats:
        groups["sample_stats"] = _draws(stats, "data_point")
    if found.log_weight is not None:
        of_points = {"k_hat": ("data_point", _array(found.k_hat))}
        groups["sample_stats"] = groups["sample_stats"].assign(of_points)
        without = log_evidence_without_draws(found.log_weight)
        groups["log_likelihood"] = _draws({"x": without}, "data_point")
    return of_groups(groups)


def log_evidence_without_draws(log_weight: Tensor) -> Tensor:
    r"""Return the importance estimate of `log p(x)` without a share of each draw.

    .. math:: \ell_s = \log \frac{1}{S} \sum_t w_t - \Big(\frac{w_s}{\sum_t w_t} - \frac{1}{S}\Big)

    to first order what is left of the estimate without the draw (the infinitesimal jackknife). The
    parameters of a run are a point, not draws of a posterior: every draw would have the same
    `log p(x)`, which ArviZ's Pareto smoothing does not take. Of these values `arviz.loo` makes the
    estimate itself, to a hundredth of a nat, and its k-hat, taken of :math:`e^{-\ell}`, is the one
    of the importance weights: where it is too high, the estimate is not to be trusted.

    Args:
        log_weight: Log importance weights in nats, of shape `draws points`.

    Returns:
        Of the same shape, in double precision.
    """
    log_weight, draws = log_weight.double(), len(log_weight)
    share = log_weight.softmax(0)
    return log_weight.logsumexp(0) - log(draws) - (share - 1 / draws)


def save_netcdf(data: Any, path: Path) -> Path:
    """Write ArviZ data as netCDF, whole; `arviz.from_netcdf` reads it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    # Without its name, a `DataTree` of an older xarray takes SciPy's engine, which has no groups.
    data.to_netcdf(beside, engine="h5netcdf")
    content = beside.read_bytes()
    beside.unlink()
    write_atomically(path, lambda file: file.write(content))
    return path


def of_groups(groups: Mapping[str, Any]) -> Any:
    """Return data sets by the name of their group as the installed ArviZ has them together."""
    import arviz
    import xarray

    if is_data_tree():
        return xarray.DataTree.from_dict(groups)
    return arviz.InferenceData(**groups)


def is_data_tree() -> bool:
    """Whether the installed ArviZ has `DataTree`s (from 1.0 on) and no `InferenceData`."""
    import arviz

    return int(arviz.__version__.split(".")[0]) >= 1


def _draws(values: Mapping[str, Tensor], *dims: str) -> Any:
    """One chain of draws, of shape `draws *dims ...`."""
    return _dataset({n: v[None] for n, v in values.items()}, "chain", "draw", *dims)


def _dataset(values: Mapping[str, Tensor], *dims: str) -> Any:
    """Variables with these dimensions, and others of their own after them."""
    import arviz
    import xarray

    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    about = ATTRIBUTES | {"created_at": made, "arviz_version": arviz.__version__}
    found = xarray.Dataset(variables(values, *dims), attrs=about)
    return found.assign_coords({dim: np.arange(size) for dim, size in found.sizes.items()})


def variables(values: Mapping[str, Tensor], *dims: str) -> dict[str, Any]:
    """Return what an `xarray.Dataset` is made of: these dimensions, and others after them."""
    return {
        name: (
            [*dims, *(f"{name}_dim_{i}" for i in range(value.dim() - len(dims)))],
            _array(value),
        )
        for name, value in values.items()
    }


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    # NumPy has no half precision of every kind.
    return (value.float() if value.dtype in HALVES else value).numpy()
