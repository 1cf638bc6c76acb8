"""Training on two devices: two processes on the CPU, as a user starts them.

Ranks draw noise of their own, so a guide without noise is what can be compared with one process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.runs.folder import RunFolder
from pyro_latents.training.checkpoint import read_checkpoint

PROGRAM = Path(__file__).with_name("program_on_two_ranks.py")


def train(out, **options):
    recipe = zoo.recipe("vae-digits", networks="dense", guide="delta")
    return recipe.train(out, progress=False, accelerator="cpu", **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The runs of two ranks, and what the program printed."""
    out = tmp_path_factory.mktemp("devices")
    train(out / "from-one", steps=5)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return out, done


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return train(tmp_path_factory.mktemp("one") / "run", steps=16)


def assert_like(path, run):
    """Compare parameters, Adam's averages and losses, up to the order of sums."""
    checkpoints = [read_checkpoint(RunFolder(p).checkpoint_path) for p in (path, run.path)]
    for part in ("parameters", "optimizers"):
        mine, theirs = (checkpoint[part] for checkpoint in checkpoints)
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    mine, theirs = (history(p) for p in (path, run.path))
    assert mine == pytest.approx(theirs, rel=1e-5, nan_ok=True)


def history(path):
    """All figures but the seconds; an epoch that was cut has no validation loss."""
    rows = (path / "history.csv").read_text().splitlines()[1:]
    return [float(cell or "nan") for row in rows for cell in row.split(",")[:-1]]


@pytest.mark.parametrize("run", ["whole", "from-one"])
def test_two_processes_train_like_one(folders, one_process, run):
    assert_like(folders[0] / run, one_process)


def test_two_processes_train_like_one_when_their_steps_are_captured(folders, tmp_path):
    whole = train(tmp_path / "run", steps=104, eager=True)
    assert_like(folders[0] / "captured", whole)


def test_a_run_of_two_processes_is_resumed_by_one(folders, one_process):
    train(folders[0] / "from-two", steps=16, resume=True)
    assert_like(folders[0] / "from-two", one_process)


def test_the_first_process_alone_writes_and_prints(folders):
    out, done = folders
    assert (out / "written-1.txt").read_text() == ""
    written = (out / "written-0.txt").read_text().splitlines()
    # So short a training is saved at its end only.
    assert written.count("whole/checkpoint.ckpt") == 1
    assert written.count("from-two/checkpoint.ckpt") == 1
    for run, kind in (("whole", "epoch 2, step 16"), ("phases", "epoch 2, step 6")):
        names = sorted(path.name for path in (out / run).iterdir())
        assert names == ["checkpoint.ckpt", "config.yaml", "history.csv"]
        (line,) = [line for line in done.stdout.splitlines() if line.endswith(str(out / run))]
        assert line.startswith(kind)


def test_ranks_agree_about_steps_that_are_tried(folders):
    tried = [torch.load(folders[0] / f"tried-{rank}.pt") for rank in range(2)]
    assert len(tried[0]) == 3
    torch.testing.assert_close(*tried, rtol=0, atol=0)
    # One of them saw the second step fail, so it is taken back and the next ones are shorter.
    assert torch.equal(tried[0][1]["psi"], tried[0][0]["psi"])
    assert tried[0][1]["rate"] < tried[0][0]["rate"]


def test_a_failure_of_one_rank_is_told_once_and_ends_all(folders):
    _, done = folders
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert [line.rpartition("pyro-latents: ")[2] for line in errors] == [
        "error: no loss at step 0"
    ]
    assert "Traceback" not in done.stderr


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(UserError, match="--batch-size 100 cannot be shared by 3 devices"):
        train(tmp_path / "run", steps=1, devices=3)


def test_devices_that_are_not_there_are_refused(tmp_path):
    recipe = zoo.recipe("vae-digits", batch_size=1000)
    with pytest.raises(UserError, match="cannot train with --accelerator gpu --devices 1000"):
        recipe.train(tmp_path / "run", steps=1, accelerator="gpu", devices=1000)
    assert not (tmp_path / "run").exists()


def test_machines_that_nobody_started_are_refused(tmp_path):
    with pytest.raises(UserError, match="--nodes 2 needs a process for each device"):
        train(tmp_path / "run", steps=1, nodes=2)
    assert not (tmp_path / "run").exists()
