"""Checks as ArviZ data: an `InferenceData`, or a `DataTree` from ArviZ 1 on."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Return a check in ArviZ's groups.

    Statistics are the variables of ``posterior_predictive``, ``prior_predictive`` and
    ``observed_data``; the guide's draws those of ``posterior``. ``log_likelihood`` and
    ``log_weight`` have a value for each draw and data point, ``k_hat`` one for each data point.

    Args:
        found: Replicates of data points given themselves.
        prior: Statistics of draws from the prior, each of shape `draws`.
    """
    import xarray

    groups: dict[str, dict[str, np.ndarray]] = {
        "posterior": {n: _chain(v[:POSTERIOR_DRAWS]) for n, v in found.latents.items()},
        "posterior_predictive": {n: _chain(v) for n, v in found.replicated.items()},
        "observed_data": {n: _array(v) for n, v in found.observed.items()},
    }
    if prior is not None:
        groups["prior_predictive"] = {n: _chain(v) for n, v in prior.items()}
    if found.log_likelihood is not None:
        groups["log_likelihood"] = {"x": _chain(found.log_likelihood)}
    if found.log_weight is not None:
        groups["sample_stats"] = {"log_weight": _chain(found.log_weight)}
    points = len(next(iter(found.observed.values())))
    dims = dict.fromkeys([*found.observed, "x", "log_weight"], ["data_point"])
    dims |= {n: ["data_point", *_event_dims(n, v)] for n, v in found.latents.items()}
    if prior is not None:
        # One number a draw: the draws of the prior belong to no data point.
        prior_group = groups.pop("prior_predictive")
    data = _from_dict(groups, {"data_point": np.arange(points)}, dims)
    if prior is not None:
        _add_group(data, "prior_predictive", prior_group)
    if found.log_weight is not None:
        # A `DataTree` takes a pair of dimension and values for one object, a `Dataset` does not.
        data["sample_stats"]["k_hat"] = xarray.DataArray(_array(found.k_hat), dims="data_point")
    for group in _groups(data):
        data[group].attrs.update(ATTRIBUTES)
    return data


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


def _from_dict(groups: dict[str, Any], coords: dict[str, Any], dims: dict[str, Any]) -> Any:
    import arviz

    if is_data_tree():
        return arviz.from_dict(groups, coords=coords, dims=dims)
    return arviz.from_dict(**groups, coords=coords, dims=dims)


def _add_group(data: Any, name: str, values: dict[str, np.ndarray]) -> None:
    import xarray

    group = xarray.Dataset({n: (("chain", "draw"), v) for n, v in values.items()})
    group = group.assign_coords(chain=[0], draw=np.arange(group.sizes["draw"]))
    if is_data_tree():
        data[name] = xarray.DataTree(group)
    else:
        data.add_groups({name: group})


def _groups(data: Any) -> list[str]:
    return list(data.children) if is_data_tree() else list(data.groups())


def _event_dims(name: str, value: Tensor) -> list[str]:
    return [f"{name}_dim_{i}" for i in range(value.dim() - 2)]


def _chain(value: Tensor) -> np.ndarray:
    return _array(value)[None]


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()
