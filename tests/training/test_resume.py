import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.training.checkpoint import read_checkpoint

SMALL = {"networks": "dense", "halve_every": 1}


def train(out, seed=0, **options):
    recipe = zoo.recipe("vae-digits", seed=seed, **SMALL)
    return recipe.train(out, progress=False, accelerator="cpu", **options)


def state(run):
    """Everything that must be equal: parameters, optimiser, and the history but its seconds."""
    checkpoint = read_checkpoint(run.folder.checkpoint_path)
    rows = [line.rsplit(",", 1)[0] for line in run.folder.history_path.read_text().splitlines()]
    return checkpoint["parameters"], checkpoint["optimizers"], rows


def assert_equal(run, other):
    *mine, my_rows = state(run)
    *theirs, their_rows = state(other)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert my_rows == their_rows


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(tmp_path):
    runs = [train(tmp_path / str(i), seed, epochs=2) for i, seed in enumerate((0, 0, 1))]
    assert_equal(runs[0], runs[1])
    assert state(runs[0])[2] != state(runs[2])[2]


@pytest.mark.parametrize("first", [{"epochs": 1}, {"steps": 17}], ids=["epoch", "within an epoch"])
def test_a_resumed_run_is_that_which_did_not_stop(tmp_path, first):
    whole = train(tmp_path / "whole", steps=36)
    train(tmp_path / "parts", **first)
    assert_equal(whole, train(tmp_path / "parts", steps=36, resume=True))


def test_rates_that_fall_go_on_falling_to_the_same_end(tmp_path):
    def recipe():
        return zoo.recipe("vae-digits", networks="dense", schedule="fall")

    recipe().train(tmp_path / "run", steps=17, progress=False, accelerator="cpu")
    with pytest.raises(UserError, match="fall to zero at step 17, not 36"):
        recipe().train(tmp_path / "run", steps=36, resume=True, progress=False)


def test_a_killed_run_is_resumed_exactly(tmp_path):
    whole = train(tmp_path / "whole", epochs=40)
    command = [sys.executable, "-m", "pyro_latents", "train", "vae-digits", "--epochs", "40"]
    command += [
        "--networks",
        "dense",
        "--halve-every",
        "1",
        "--out",
        str(tmp_path / "killed"),
        "--accelerator",
        "cpu",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    checkpoint = tmp_path / "killed" / "checkpoint.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert_equal(whole, train(tmp_path / "killed", epochs=40, resume=True))


def test_a_run_is_not_overwritten(tmp_path):
    run = train(tmp_path / "run", steps=2)
    before = run.folder.checkpoint_path.read_bytes()
    with pytest.raises(UserError, match="holds a run already: add --resume"):
        train(tmp_path / "run", steps=3)
    assert run.folder.checkpoint_path.read_bytes() == before


def test_a_run_is_not_resumed_with_other_settings(tmp_path):
    train(tmp_path / "run", steps=2)
    recipe = zoo.recipe("vae-digits", **{**SMALL, "z_dim": 3})
    with pytest.raises(UserError, match="was trained with z_dim 10, not 3"):
        recipe.train(tmp_path / "run", steps=4, resume=True)


def test_a_run_from_before_a_setting_existed_had_its_default(tmp_path):
    run = train(tmp_path / "run", steps=2)
    config = run.config
    del config["settings"]["binarise"]
    run.folder.write_config(config)
    assert train(tmp_path / "run", steps=3, resume=True).config["settings"]["binarise"] is False


def test_no_file_is_left_half_written(tmp_path):
    run = train(tmp_path / "run", steps=2)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoint.ckpt",
        "config.yaml",
        "history.csv",
    ]


@pytest.mark.parametrize(
    "chain",
    [
        [{"steps": 20}, {"epochs": 5}],
        [{"steps": 20}, {"steps": 30}, {"epochs": 5}],
        [{"epochs": 1}, {"steps": 13}, {"steps": 14}, {"epochs": 2}, {"steps": 47}, {"epochs": 5}],
    ],
    ids=["steps, epochs", "steps twice", "six"],
)
def test_any_chain_of_resumptions_is_the_unbroken_run(tmp_path, chain):
    whole = train(tmp_path / "whole", epochs=5)
    for part in chain:
        run = train(tmp_path / "parts", resume=True, **part)
    assert_equal(whole, run)


def test_a_finished_run_is_resumed_without_a_change(tmp_path):
    run = train(tmp_path / "run", steps=13)
    before = run.folder.history_path.read_bytes(), run.folder.checkpoint_path.read_bytes()
    train(tmp_path / "run", steps=13, resume=True)
    assert before == (
        run.folder.history_path.read_bytes(),
        run.folder.checkpoint_path.read_bytes(),
    )


def test_fewer_steps_than_were_taken_are_refused_and_change_nothing(tmp_path):
    run = train(tmp_path / "run", steps=13)
    before = run.folder.config_path.read_bytes()
    with pytest.raises(UserError, match="has been trained for 13 steps, more than the 12"):
        train(tmp_path / "run", epochs=1, resume=True)
    assert run.folder.config_path.read_bytes() == before


def test_results_of_before_are_put_aside(tmp_path):
    run = train(tmp_path / "run", steps=13)
    run.folder.add_metrics({"elbo": -1.0})
    assert train(tmp_path / "run", steps=14, resume=True).metrics == {}
    assert (run.path / "at-step-13" / "metrics.json").exists()


def test_a_start_that_failed_does_not_block_its_folder(tmp_path):
    recipe = zoo.recipe("vae-digits", **SMALL, learning_rate=1e30)
    with pytest.raises(UserError, match="Lower --learning-rate"):
        recipe.train(tmp_path / "run", progress=False, accelerator="cpu", steps=30)
    assert train(tmp_path / "run", steps=2).config["settings"]["learning_rate"] == 1e-3


def test_a_flipped_byte_is_seen(tmp_path):
    run = train(tmp_path / "run", steps=2)
    content = bytearray(run.folder.checkpoint_path.read_bytes())
    content[len(content) // 2] ^= 1
    run.folder.checkpoint_path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        train(tmp_path / "run", steps=4, resume=True)


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path):
    run = train(tmp_path / "run", steps=2)
    with run.folder.held(), pytest.raises(UserError, match="being trained by another process"):
        train(tmp_path / "run", steps=4, resume=True)


def test_another_precision_is_refused(tmp_path):
    train(tmp_path / "run", steps=2)
    with pytest.raises(UserError, match="trained with precision 32-true, not 64-true"):
        train(tmp_path / "run", steps=4, resume=True, precision="64-true")
