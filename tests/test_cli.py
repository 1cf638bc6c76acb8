import json
import shutil
from pathlib import Path

import pytest

from pyro_latents.cli import main

QUICK = ["--networks", "dense", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "vae-digits", "--steps", "12", "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_list_shows_story_data_guides_and_paper(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["recipe", "story", "data", "guides", "paper"]
    assert any(line.startswith("vae-mnist ") and "full-rank" in line for line in lines)


def test_train_ends_with_a_summary_and_the_path(tmp_path, capsys):
    out = tmp_path / "new" / "run"
    assert main(["train", "vae-digits", "--steps", "12", "--out", str(out), *QUICK]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("epoch 1, step 12, loss ")
    assert last.endswith(str(out))


def test_evaluate_writes_flat_metrics(run, capsys):
    command = ["evaluate", str(run), "--particles", "30", "--limit-test", "20"]
    assert main(command) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["log_likelihood"] > metrics["elbo"]
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl_z"])
    assert metrics["log_likelihood_particles"] == 30
    assert metrics["elbo_se"] > 0
    assert "log_likelihood" in capsys.readouterr().out


def test_evaluating_leaves_the_checkpoint_as_it_was(run):
    before = (run / "checkpoint.ckpt").read_bytes()
    main(["evaluate", str(run), "--particles", "5", "--limit-test", "5"])
    assert (run / "checkpoint.ckpt").read_bytes() == before


def test_plot_draws_images_and_the_history(run, capsys):
    assert main(["plot", str(run)]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["images.png", "history.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_options_may_come_from_a_file(tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text("z_dim: 3\nnetworks: dense\naccelerator: cpu\nsteps: 12\n")
    out = tmp_path / "run"
    assert main(["train", "vae-digits", "--config", str(config), "--out", str(out)]) == 0
    assert "z_dim: 3" in (out / "config.yaml").read_text()


def test_missing_data_leave_no_folder_behind(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "vae-mnist", "--data-dir", str(tmp_path), "--out", str(out)]
    assert main(command) == 2
    assert "MNIST not found" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["train", "vae-digits", "--steps", "1", "--out", str(tmp_path), *QUICK]) == 2
    assert "exists and is not a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
