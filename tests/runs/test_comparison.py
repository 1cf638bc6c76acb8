"""Runs with different guides side by side, on the command line."""

import json
import re
from functools import partial

import pytest
import torch

from pyro_latents import zoo
from pyro_latents.checks.reference_io import write_reference
from pyro_latents.cli import main
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.evaluation.reference import Reference, reference_posterior
from pyro_latents.runs import comparison
from pyro_latents.runs.comparison import compare
from pyro_latents.runs.trained_model import TrainedModel


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = {"networks": "dense", "z_dim": 3}
    for guide in ("paper", "full-rank", "refined"):
        zoo.recipe("vae-digits", guide=guide, **options).train(
            folder / guide, steps=30, progress=False
        )
    zoo.recipe("vae-digits", guide="full-rank", model_from=folder / "paper").train(
        folder / "same-model", steps=30, progress=False
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
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["runs"]
    for row in found.values():
        # By draws of its own, a thousand of them beside one.
        assert row["gap"] == pytest.approx(row["log_likelihood"] - row["elbo"], abs=1.5)
        assert 0 <= row["active_units_z"] <= 3
        assert row["seconds_per_step"] > 0
        assert row["guide_parameters"] > 0
        assert row["log_likelihood_points"] == 20
    # The same network, trained the same, but moved uphill for each image.
    assert found["refined"]["elbo"] > found["paper"]["elbo"]
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000


def opened(runs, *names):
    return [zoo.open_run(runs / name) for name in names]


def test_differences_are_paired(runs):
    found = compare(opened(runs, "paper", "full-rank"), particles=30, points=15)
    metrics = [
        run.parts.story.metrics(
            run.parts, run.parts.batches("test", limit=15), ImportanceSampling(30, 15)
        )
        for run in opened(runs, "paper", "full-rank")
    ]
    for name in ("elbo", "log_likelihood", "kl_z"):
        apart = (metrics[1][name] - metrics[0][name]).double()
        difference = found.differences[0][name]
        assert difference.mean == pytest.approx(apart.mean().item(), rel=1e-5)
        assert difference.standard_error == pytest.approx(apart.std().item() / 15**0.5, rel=1e-5)
        assert difference.points == 15
        assert found.rows[1][name] - found.rows[0][name] == pytest.approx(difference.mean)


def test_a_run_does_not_differ_from_itself(runs):
    found = compare(opened(runs, "paper", "paper"), particles=5, points=10)
    assert all(d.mean == d.standard_error == 0 for d in found.differences[0].values())
    assert found.one_model


def test_one_model_is_told_from_several(runs):
    same = compare(opened(runs, "paper", "same-model"), particles=5, points=10)
    assert same.one_model
    assert "The runs have one model" in same.as_text()
    assert "k_hat_above_threshold (%)" in same.as_text()
    apart = compare(opened(runs, "paper", "full-rank"), particles=5, points=10)
    assert not apart.one_model
    assert apart.as_text().splitlines()[-1].startswith("warning: the runs have models of")


def test_gaps_of_one_model_end_at_one_evidence(runs):
    both = opened(runs, "paper", "same-model")
    found = compare(both, particles=200, points=20)
    bounds = []
    for run, row in zip(both, found.rows, strict=True):
        alone = compare([run, run], particles=200, points=20).rows[0]
        # Alone, a gap ends at the run's own estimate.
        bounds.append(alone["log_likelihood"] - alone["gap"])
        assert bounds[-1] + row["gap"] >= min(r["log_likelihood"] for r in found.rows)
    apart = found.differences[0]["gap"].mean
    assert apart == pytest.approx(bounds[0] - bounds[1], abs=1e-3)


def test_annealing_stands_beside_importance_sampling(runs, monkeypatch):
    short = partial(comparison.Annealing, chains=4, temperatures=10)
    monkeypatch.setattr(comparison, "Annealing", short)
    found = compare(opened(runs, "paper", "same-model"), particles=50, points=3, evidence="ais")
    # One model, hardly trained: both estimates are good, with either guide.
    assert abs(found.differences[0]["log_evidence_ais"].mean) < 1.0
    for row in found.rows:
        assert row["log_evidence_ais"] == pytest.approx(row["log_likelihood"], abs=1.0)


def test_guides_of_one_model_are_scored_against_its_reference_posteriors(runs, monkeypatch):
    run = zoo.open_run(runs / "paper")
    x = run.parts.splits.test.x[:3]
    reference = reference_posterior(
        run.parts.model, run.parts.guide, x, num_chains=2, num_draws=100, num_temperatures=10
    )
    # However few the draws, they are to be compared with here.
    monkeypatch.setattr(Reference, "is_agreed", torch.ones(3, dtype=torch.bool))
    about = {"model": TrainedModel.of(run.folder).hash}
    write_reference(reference, x, run.folder.reference_path, about)
    found = compare(opened(runs, "paper", "same-model"), particles=5, points=3)
    for row in found.rows:
        assert 0 < row["reference_coverage_90"] <= 100
        assert row["reference_energy_distance"] > -1
    assert found.differences[0]["reference_energy_distance"].points == 3
    monkeypatch.setattr(Reference, "is_agreed", torch.zeros(3, dtype=torch.bool))
    alone = compare(opened(runs, "paper", "same-model"), particles=5, points=3)
    assert not [name for name in alone.rows[0] if name.startswith("reference")]
    write_reference(reference, x, run.folder.reference_path, {"model": "another"})
    with pytest.raises(UserError, match="reference.nc is of a model that the run had before"):
        compare(opened(runs, "paper", "same-model"), particles=5, points=3)
    # Those of another model are none of these runs'.
    other = compare(opened(runs, "full-rank", "paper"), particles=5, points=3)
    assert not [name for name in other.rows[0] if name.startswith("reference")]
    run.folder.reference_path.unlink()


def test_an_old_comparison_is_not_overwritten(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["compare", str(runs / "paper"), str(runs / "full-rank")]
    command += ["--particles", "3", "--points", "5"]
    assert main(command) == main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"comparison", "comparison-2"}
    assert main([*command, "--out", "comparison"]) == 2
    assert re.search("comparison holds a comparison already", capsys.readouterr().err)


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
