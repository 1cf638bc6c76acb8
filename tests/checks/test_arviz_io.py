"""Checks as ArviZ data of either major version: the first by itself, the second by its names."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import xarray

from pyro_latents.checks import Replicates
from pyro_latents.checks.arviz_io import is_data_tree, save_netcdf, to_arviz
from pyro_latents.checks.figures import u_values

DRAWS, POINTS = 60, 7


def from_dict(data, *, name=None, sample_dims=None, coords=None, dims=None):
    """ArviZ 1's: groups by name in one dictionary, to a tree."""
    sample_dims = ["chain", "draw"]
    groups = {}
    for group, variables in data.items():
        first = [] if group == "observed_data" else sample_dims
        arrays = {}
        for key, values in variables.items():
            named = [*first, *dims[key]]
            known = {d: coords[d] for d in named if d in coords}
            arrays[key] = xarray.DataArray(values, dims=named, coords=known)
        groups[f"/{group}"] = xarray.Dataset(arrays)
    return xarray.DataTree.from_dict(groups, name=name)


def arviz_of_major_1():
    """A module with the names that are used of ArviZ 1, and records of its plots."""
    module = ModuleType("arviz")
    module.__version__ = "1.0.0"
    module.from_dict = from_dict
    module.from_netcdf = xarray.open_datatree
    module.plots = []

    def plot_ppc_pit(data, *, var_names, backend):
        module.plots.append((data, var_names, backend))
        figure = np.array("the figure", dtype=object)
        return SimpleNamespace(viz={"figure": xarray.DataArray(figure)})

    module.plot_ppc_pit = plot_ppc_pit
    return module


@pytest.fixture(params=["installed", "1"])
def arviz(request, monkeypatch):
    if request.param == "1":
        monkeypatch.setitem(sys.modules, "arviz", arviz_of_major_1())
    import arviz

    return arviz


@pytest.fixture
def found():
    def draws(*shape):
        return torch.randn(DRAWS, POINTS, *shape)

    return Replicates(
        observed={"ink": torch.randn(POINTS), "slant": torch.randn(POINTS)},
        replicated={"ink": draws(), "slant": draws()},
        latents={"z": draws(3), "y": torch.randint(4, (DRAWS, POINTS))},
        log_likelihood=draws(),
        log_weight=draws(),
    )


def test_the_groups_are_written_and_read(arviz, found, tmp_path):
    prior = {"ink": torch.randn(30)}
    path = save_netcdf(to_arviz(found, prior), tmp_path / "check.nc")
    assert [file.name for file in tmp_path.iterdir()] == ["check.nc"]
    data = arviz.from_netcdf(path)
    assert data["posterior"]["z"].dims == ("chain", "draw", "data_point", "z_dim_0")
    assert data["posterior"]["y"].shape == (1, 50, POINTS)
    assert data["posterior_predictive"]["slant"].shape == (1, DRAWS, POINTS)
    assert data["prior_predictive"]["ink"].dims == ("chain", "draw")
    assert data["observed_data"]["ink"].dims == ("data_point",)
    assert data["log_likelihood"]["x"].shape == (1, DRAWS, POINTS)
    assert data["sample_stats"]["log_weight"].shape == (1, DRAWS, POINTS)
    for name in ("posterior", "prior_predictive", "observed_data", "sample_stats"):
        assert "variational" in data[name].attrs["inference"]
    np.testing.assert_allclose(data["sample_stats"]["k_hat"], found.k_hat.float())
    np.testing.assert_allclose(data["observed_data"]["ink"], found.observed["ink"])
    np.testing.assert_allclose(data["prior_predictive"]["ink"][0], prior["ink"])


def test_draws_without_weights_have_no_sample_stats(arviz, found):
    plain = Replicates(found.observed, found.replicated, found.latents)
    data = to_arviz(plain)
    groups = list(data.children) if is_data_tree() else data.groups()
    assert groups == ["posterior", "posterior_predictive", "observed_data"]


def test_the_kind_of_the_data_is_that_of_the_version(arviz, found):
    data = to_arviz(found)
    major = int(arviz.__version__.split(".")[0])
    assert is_data_tree() == (major >= 1) == isinstance(data, xarray.DataTree)


def test_the_u_values_are_drawn_by_arviz(arviz, found):
    data = to_arviz(found)
    figure = u_values(data)
    if is_data_tree():
        assert figure == "the figure"
        assert arviz.plots == [(data, ["ink", "slant"], "matplotlib")]
    else:
        assert [axis.get_title() for axis in figure.axes[:2]] == ["ink", "slant"]
