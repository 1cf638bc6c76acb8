"""`evaluate --evidence` and `reference`, on the command line."""

import json

import arviz
import pytest

from pyro_latents import zoo
from pyro_latents.checks.reference_io import read_reference
from pyro_latents.cli import main
from pyro_latents.errors import UserError

FEW = ["--particles", "5", "--limit-test", "20", "--annealed-points", "4", "--chains", "3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    recipe = zoo.recipe("vae-digits", networks="dense", z_dim=2, hidden_dims=(32,))
    recipe.train(path, steps=30, progress=False)
    return path


def test_evaluate_adds_a_bound_and_the_width_of_the_interval(run, capsys):
    assert main(["evaluate", str(run), *FEW, "--evidence", "interval", "--temperatures", "8"]) == 0
    found = json.loads((run / "metrics.json").read_text())
    assert found["log_evidence_ais"] < 0
    assert found["log_evidence_ais_se"] > 0
    assert 1 <= found["log_evidence_ais_ess"] <= 3
    assert 0 < found["log_evidence_ais_acceptance"] <= 1
    counts = [found[f"log_evidence_ais_{name}"] for name in ("points", "chains", "temperatures")]
    assert counts == [4, 3, 8]
    assert found["evidence_interval_width_worst"] >= found["evidence_interval_width"]
    assert "log_evidence_ais" in capsys.readouterr().out


def test_evaluate_anneals_only_where_it_is_asked_to(run):
    opened = zoo.open_run(run)
    assert not any(
        "ais" in name for name in opened.measure(particles=2, likelihood_points=2, limit_test=4)
    )


def test_evidence_of_another_kind_is_refused(run):
    with pytest.raises(UserError, match="unknown --evidence 'asi': did you mean ais"):
        zoo.open_run(run).evaluate(evidence="asi")


def test_a_model_without_a_density_for_its_chains_is_told_so(tmp_path):
    recipe = zoo.recipe("pose-tvae-digits", z_dim=2)
    opened = recipe.train(tmp_path / "pose", steps=2, progress=False)
    with pytest.raises(UserError, match="site 'u' of the guide is a point mass"):
        opened.evaluate(
            particles=2, limit_test=4, likelihood_points=2, evidence="ais", annealed_points=2
        )


def test_reference_keeps_draws_that_arviz_opens(run, capsys):
    few = ["--images", "3", "--chains", "4", "--draws", "30", "--temperatures", "10"]
    assert main(["reference", str(run), *few]) == 0
    shown = capsys.readouterr().out
    assert "with a reference" in shown
    assert "4 x 30" in shown
    reference, x, attributes = read_reference(run / "reference.nc")
    assert reference.draws["z"].shape == (4, 30, 3, 2)
    assert x.shape == (3, 1, 28, 28)
    assert attributes["recipe"] == "vae-digits"
    opened = arviz.from_netcdf(run / "reference.nc")
    assert {"chain", "draw", "data_point"} <= set(opened["posterior"]["z"].dims)
