"""Checks as ArviZ data: an `InferenceData`, or a `DataTree` from ArviZ 1 on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyro_latents.checks.predictive import Replicates
from pyro_latents.files import write_atomically

ATTRIBUTES = {
    "inference_library": "pyro",
    "inference": "variational (SVI)",
    "comment": "independent draws of an amortised guide, not of a Markov chain: one chain, and "
    "no r-hat or effective sample size of chains",
}
# Draws of latent sites that are kept; statistics are kept for all.
POSTERIOR_DRAWS = 50


def to_arviz(found: Replicates, prior: Mapping[str, Tensor] | None = None) -> Any:
    """Return a check, and statistics of draws from the prior, in ArviZ's groups.

    Statistics are the variables of ``posterior_predictive``, ``prior_predictive`` and
    ``observed_data``; the guide's draws those of ``posterior``. ``log_likelihood`` and
    ``log_weight`` have a value for each draw and data point, ``k_hat`` one for each data point.
    """
    import arviz
    import xarray

    latents = {name: value[:POSTERIOR_DRAWS] for name, value in found.latents.items()}
    groups = {
        "posterior": _draws(latents, "data_point"),
        "posterior_predictive": _draws(found.replicated, "data_point"),
        "observed_data": _dataset(found.observed, "data_point"),
    }
    if prior is not None:
        groups["prior_predictive"] = _draws(prior)
    if found.log_likelihood is not None:
        groups["log_likelihood"] = _draws({"x": found.log_likelihood}, "data_point")
    if found.log_weight is not None:
        weights = _draws({"log_weight": found.log_weight}, "data_point")
        groups["sample_stats"] = weights.assign(k_hat=("data_point", _array(found.k_hat)))
    if is_data_tree():
        return xarray.DataTree.from_dict(groups)
    return arviz.InferenceData(**groups)


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
    variables = {
        name: (
            [*dims, *(f"{name}_dim_{i}" for i in range(value.dim() - len(dims)))],
            _array(value),
        )
        for name, value in values.items()
    }
    found = xarray.Dataset(variables, attrs=about)
    return found.assign_coords({dim: np.arange(size) for dim, size in found.sizes.items()})


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()
