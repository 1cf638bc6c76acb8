"""Runs with different guides side by side, on the command line."""

import json

import pytest

from pyro_latents import zoo
from pyro_latents.cli import main
from pyro_latents.errors import UserError
from pyro_latents.runs.comparison import compare


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = {"networks": "dense", "z_dim": 3}
    for guide in ("paper", "full-rank", "refined"):
        zoo.recipe("vae-digits", guide=guide, **options).train(
            folder / guide, steps=30, progress=False
        )
    zoo.recipe("pose-tvae-digits", z_dim=3).train(folder / "pose", steps=2, progress=False)
    zoo.recipe("vae-digits", data="rotated-digits", **options).train(
        folder / "rotated", steps=2, progress=False
    )
    return folder


def test_the_table_of_two_guides(runs, tmp_path, capsys):
    folders = [str(runs / guide) for guide in ("paper", "full-rank", "refined")]
    options = ["--particles", "40", "--points", "20", "--out", str(tmp_path / "out")]
    assert main(["compare", *folders, *options]) == 0
    shown = capsys.readouterr().out
    assert "full-rank" in shown.splitlines()[0]
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    for row in found.values():
        assert row["gap"] == pytest.approx(row["log_likelihood"] - row["elbo"])
        assert 0 <= row["active_units_z"] <= 3
        assert row["seconds_per_step"] > 0
        assert row["guide_parameters"] > 0
        assert row["log_likelihood_points"] == 20
    # The same network, trained the same, but moved uphill for each image.
    assert found["refined"]["elbo"] > found["paper"]["elbo"]
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000


@pytest.mark.parametrize(("other", "what"), [("pose", "stories"), ("rotated", "data")])
def test_other_stories_and_data_are_refused(runs, other, what):
    with pytest.raises(UserError, match=f"are of different {what}"):
        compare([zoo.open_run(runs / "paper"), zoo.open_run(runs / other)])


def test_one_run_is_no_comparison(runs):
    with pytest.raises(UserError, match="compare two runs or more"):
        compare([zoo.open_run(runs / "paper")])


def test_calibrate_writes_figure_and_p_values(runs, capsys):
    assert main(["calibrate", str(runs / "paper"), "--points", "50", "--draws", "20"]) == 0
    assert "calibration_p_z" in capsys.readouterr().out
    run = zoo.open_run(runs / "paper")
    assert 0 <= run.metrics["calibration_p_z"] <= 1
    assert (run.folder.figures_path / "calibration.png").exists()
