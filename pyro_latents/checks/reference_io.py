"""Reference posteriors as netCDF files that ArviZ opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_latents.checks.arviz_io import of_groups, save_netcdf, variables
from pyro_latents.errors import UserError
from pyro_latents.evaluation.reference import Reference

ATTRIBUTES = {
    "inference_library": "pyro",
    "inference": "Hamiltonian Monte Carlo, from draws of a guide that were annealed",
    "comment": "a data point whose is_agreed is 0 has no reference: its chains disagree",
}
# What is kept of each site beside its draws.
DIAGNOSTICS = ("r_hat", "ess")


def write_reference(
    reference: Reference, x: Tensor, path: Path, attributes: Mapping[str, str] | None = None
) -> Path:
    """Write a reference, of data points `x`, with attributes of one's own; return the path.

    ``posterior`` has the draws; ``constant_data`` the diagnostics of each coordinate, and whether
    the chains of a data point agree; ``observed_data`` the data.
    """
    from xarray import Dataset

    beside = {
        f"{kind}_{name}": getattr(reference, kind)[name]
        for kind in DIAGNOSTICS
        for name in reference.draws
    }
    beside |= {"acceptance": reference.acceptance, "is_agreed": reference.is_agreed.int()}
    groups = {
        "posterior": Dataset(variables(reference.draws, "chain", "draw", "data_point")),
        "constant_data": Dataset(variables(beside, "data_point")),
        "observed_data": Dataset(variables({"x": x}, "data_point")),
    }
    groups["posterior"].attrs |= {**ATTRIBUTES, **(attributes or {})}
    return save_netcdf(of_groups(groups), path)


def read_reference(path: Path) -> tuple[Reference, Tensor, dict[str, str]]:
    """Return a reference that was written, its data points, and its attributes.

    Raises:
        UserError: if the file is none.
    """
    import xarray

    try:
        opened = [
            xarray.load_dataset(path, group=group, engine="h5netcdf")
            for group in ("posterior", "constant_data", "observed_data")
        ]
        draws, beside, data = (_tensors(group) for group in opened)
        r_hat, ess = ({n: beside[f"{kind}_{n}"] for n in draws} for kind in DIAGNOSTICS)
        found = Reference(draws, r_hat, ess, beside["acceptance"])
        return found, data["x"], dict(opened[0].attrs)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is no reference, or damaged: write it with `pyro-latents reference`."
        ) from error


def _tensors(group: Any) -> dict[str, Tensor]:
    return {str(name): torch.as_tensor(found.values) for name, found in group.items()}
