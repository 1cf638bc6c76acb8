import json
import shutil
from pathlib import Path

import pytest
import torch

from pyro_latents.cli import main
from pyro_latents.training.checkpoint import write_checkpoint

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


MISTAKES = {
    "unknown command": (["trian"], "unknown command 'trian': did you mean train?"),
    "no recipe": (["train"], "train which recipe?"),
    "unknown recipe": (["train", "vae-minst"], "unknown recipe 'vae-minst': did you mean vae-"),
    "unknown guide": (
        ["train", "vae-digits", "--guide", "mean-feild"],
        "vae-digits has no guide 'mean-feild': did you mean mean-field? Its guides are paper,",
    ),
    "abbreviation": (["train", "vae-digits", "--z", "3"], "unrecognized arguments: --z"),
    "no number": (["train", "vae-digits", "--epochs", "many"], "--epochs"),
    "no data": (["train", "vae-mnist", "--data-dir", "/nowhere"], "/nowhere"),
    "no training points": (["train", "vae-digits", "--limit-train", "0"], "--limit-train must"),
    "negative epochs": (["train", "vae-digits", "--epochs", "-3"], "--epochs must be positive"),
    "no steps": (["train", "vae-digits", "--steps", "0"], "--steps must be at least 1; got 0"),
    "both": (
        ["train", "vae-digits", "--steps", "9", "--epochs", "2"],
        "either --epochs or --steps",
    ),
    "resume nothing": (["train", "vae-digits", "--resume"], "name its folder with --out"),
    "no run": (["evaluate", "/nowhere/run"], "/nowhere/run is not there"),
    "no particles": (["evaluate", "{run}", "--particles", "0"], "--particles must be at least 1"),
    "no test points": (["evaluate", "{run}", "--limit-test", "0"], "--limit-test must be"),
    "no likelihood": (["evaluate", "{run}", "--likelihood-points", "0"], "--likelihood-points"),
    "unknown table": (["reproduce", "table"], "unknown table 'table'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_gets_one_line_and_a_non_zero_exit(case, run, capsys):
    command, message = MISTAKES[case]
    status = main([part.format(run=run) for part in command])
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("pyro-latents: error: ")


def break_checkpoint(run):
    content = (run / "checkpoint.ckpt").read_bytes()
    (run / "checkpoint.ckpt").write_bytes(content[: len(content) // 2])


def put_a_foreign_checkpoint(run):
    write_checkpoint(
        run / "checkpoint.ckpt",
        {"parameters": {"weight": torch.zeros(2)}, "optimizers": {}, "progress": {}},
    )


class Harmful:
    def __reduce__(self):
        return (print, ("unpickled",))


def put_a_harmful_checkpoint(run):
    torch.save({"state_dict": Harmful()}, run / "checkpoint.ckpt")


DAMAGES = {
    "no configuration": (lambda run: (run / "config.yaml").unlink(), "is not a run"),
    "broken configuration": (lambda run: (run / "config.yaml").write_text("{"), "is damaged"),
    "other file": (lambda run: (run / "config.yaml").write_text("a: 1"), "names no recipe"),
    "no checkpoint": (
        lambda run: (run / "checkpoint.ckpt").unlink(),
        "has no checkpoint",
    ),
    "truncated checkpoint": (break_checkpoint, "is truncated or damaged"),
    "foreign checkpoint": (put_a_foreign_checkpoint, "does not fit the recipe"),
    "harmful checkpoint": (put_a_harmful_checkpoint, "is truncated or damaged"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_run_is_told(case, run, capsys):
    damage, message = DAMAGES[case]
    damage(run)
    assert main(["evaluate", str(run)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert "unpickled" not in captured.out


def test_a_truncated_checkpoint_is_not_resumed(run, capsys):
    break_checkpoint(run)
    command = ["train", "vae-digits", "--steps", "24", "--out", str(run), "--resume", *QUICK]
    assert main(command) == 2
    assert "is truncated or damaged" in capsys.readouterr().err


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
