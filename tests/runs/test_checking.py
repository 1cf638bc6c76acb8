"""`check` on a run of each story, trained for a few steps."""

import json

import arviz
import pytest

from pyro_latents import zoo
from pyro_latents.checks import Statistic, classifier
from pyro_latents.runs.checking import check

FEW = {"limit_train": 200, "validation": 30, "batch_size": 20}
STORIES = {
    "vae-digits": ({"networks": "dense"}, "right half given left"),
    "triplet-tvae-digits": ({"z_dim": 3}, "third member given two"),
    "equivae-digits": ({"width": 2, "m_max": 2}, "member given set of class"),
    "pose-tvae-digits": ({"hidden_dim": 16}, "right half given left"),
    "vaells-swiss-roll": ({"candidates": 0}, "end given start of path"),
    "vaells-rotated-digits": ({"warm_up": 0, "num_anchors": 2}, "end given start of path"),
}


@pytest.mark.parametrize("name", STORIES)
def test_every_story_is_checked(name, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 5)
    options, hidden = STORIES[name]
    recipe = zoo.recipe(name, **{**FEW, **options})
    run = recipe.train(tmp_path / "run", steps=2, progress=False, accelerator="cpu")
    images = len(recipe.story.x_shape) == 3
    check(run, images=6, draws=4)

    found = json.loads((run.path / "checks" / "p_values.json").read_text())
    rows = {(row["check"], row["statistic"]) for row in found["rows"]}
    assert {check_name for check_name, _ in rows} == {"per image", "population", hidden}
    expected = "ink" if images else "nearest"
    assert {("per image", expected), (hidden, expected), ("population", expected)} <= rows
    assert (("population", "equivariance_residual") in rows) == images
    assert ("equivariance_residual" in found) == images
    assert all(row["meaning"] for row in found["rows"])

    names = {path.name for path in (run.path / "checks").iterdir()}
    assert {"u_values.png", "hidden_u_values.png", "population.png"} <= names
    assert ("hidden_replicates.png" in names) == ("replicates.png" in names) == images
    hidden_data = arviz.from_netcdf(run.path / "checks" / "hidden.nc")
    assert hidden_data["posterior_predictive"][expected].shape == (1, 4, 6)

    data = arviz.from_netcdf(run.path / "checks" / "check.nc")
    assert data["posterior_predictive"][expected].shape == (1, 4, 6)
    assert data["sample_stats"]["log_conditional"].dims == ("chain", "draw", "data_point")
    assert data["constant_data"]["x"].shape == (6, *run.story.x_shape)
    # The draws of a maximised site have no importance weights.
    weighted = not name.startswith("vaells")
    assert ("log_likelihood" in data) == ("log_weight" in data["sample_stats"]) == weighted


def test_a_statistic_of_ones_own_is_in_the_tables(tmp_path):
    recipe = zoo.recipe("vae-swiss-roll", limit_train=60)
    run = recipe.train(tmp_path / "run", steps=2, progress=False, accelerator="cpu")
    check(run, images=8, draws=3, statistics={"first": Statistic(lambda x: x[..., 0], "mine")})
    table = (run.path / "checks" / "p_values.txt").read_text()
    assert [line for line in table.splitlines() if "first" in line and line.endswith("mine")]
    # Vectors are not halved, and no other part of them is hidden.
    assert not (run.path / "checks" / "hidden.nc").exists()
