"""Places that cannot be written, and surroundings that a run does not fit."""

import os
import shutil
import subprocess
import sys

import lightning_fabric.loggers.tensorboard as tensorboard_of_lightning
import pytest
from faults.conftest import SMALL

from pyro_latents.cli import main

TRAIN = f"train vae-digits {SMALL} --steps 2"
RESUME = f"train vae-digits {SMALL} --epochs 3 --out run --resume"
EVALUATE = "evaluate run --particles 3 --limit-test 4 --likelihood-points 4"


@pytest.fixture
def mount():
    """Return what mounts something, for as long as a test runs, where there is a root to do it."""
    mounted = []

    def over(*options):
        if os.geteuid() or not shutil.which("mount"):
            pytest.skip("mounting needs root")
        done = subprocess.run(["mount", *map(str, options)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(options[-1])

    yield over
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def read_only(mount, tmp_path):
    """Make a folder read-only, for root as well."""

    def make(name):
        (tmp_path / name).mkdir(exist_ok=True)
        mount("--bind", tmp_path / name, tmp_path / name)
        mount_again = ["mount", "-o", "remount,ro,bind", str(tmp_path / name)]
        subprocess.run(mount_again, check=True, capture_output=True)

    return make


# Of a training into a place of this name, which is made as the word says.
PLACES = {
    "/etc/hostname": "/etc/hostname cannot be written (File exists)",
    "/etc/hostname/run": "cannot be written (Not a directory)",
    "run" * 100: "cannot be written (File name too long)",
    "dangling": "dangling is a link to nothing: give another --out",
    "/dev/null": "/dev/null cannot be written (File exists)",
    "/proc/run": "cannot be written",
    "locked": "locked cannot be written (Read-only file system)",
    "locked/new/run": "cannot be written (Read-only file system)",
    "full": "full cannot be written (No space left on device)",
}


@pytest.mark.parametrize(("place", "words"), PLACES.items(), ids=PLACES)
def test_a_place_that_cannot_be_written(place, words, tmp_path, refused, read_only, mount):
    if place == "dangling":
        (tmp_path / place).symlink_to("nowhere")
    if place.startswith("locked"):
        read_only("locked")
    if place == "full":
        (tmp_path / place).mkdir()
        mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path / place)
        (tmp_path / place / "tensorboard").write_bytes(bytes(16 * 1024))
    refused(f"{TRAIN} --out {place}", words)


def test_a_disk_without_room_for_a_checkpoint(mount, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path / "small")
    assert main(f"{TRAIN} --out small".split()) == 2
    *epochs, last = capfd.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in epochs] == ["epoch 1"]
    assert last == "pyro-latents: error: small/checkpoint.ckpt: No space left on device."
    assert sorted(os.listdir("small")) == ["config.yaml", "history.csv"]


def test_a_disk_that_fills_keeps_the_last_checkpoint(run, mount, tmp_path, refused):
    """What there is stays as it was, but for the history, which the end of an epoch writes."""
    size = sum(path.stat().st_size for path in run.iterdir())
    content = {path.name: path.read_bytes() for path in run.iterdir()}
    mount("-t", "tmpfs", "-o", f"size={size + 24 * 1024}", "tmpfs", run)
    for name, data in content.items():
        (run / name).write_bytes(data)
    assert main(RESUME.split()) == 2
    assert (run / "checkpoint.ckpt").read_bytes() == content["checkpoint.ckpt"]
    assert not list(run.glob(".*"))


# Of a run in a folder that cannot be written.
WRITERS = {
    EVALUATE: "run cannot be written: copy the run",
    "check run --images 4 --draws 2": "run cannot be written: copy the run",
    "calibrate run --points 4 --draws 3": "run cannot be written: copy the run",
    "plot run": "run cannot be written: copy the run",
    "report run": "run cannot be written: copy the run",
    RESUME: "Read-only file system",
    "compare run run --particles 3 --points 4 --out run/new": "run/new cannot be written",
    "compare run run --particles 3 --points 4 --out run/config.yaml": "config.yaml cannot be",
}


@pytest.mark.parametrize(("command", "words"), WRITERS.items(), ids=WRITERS)
def test_a_run_that_cannot_be_written(command, words, run, read_only, refused):
    read_only("run")
    refused(command, words)


SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_JOB_NAME": "training",
    "SLURM_NODELIST": "localhost",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "training",
    "WORLD_SIZE": "4",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29511",
}
# Variables of the environment, what is run with them, and what is said.
SURROUNDINGS = {
    "an allocation of other ranks": (SLURM, "--devices 2", "--devices 2 --nodes 1"),
    "an allocation of other machines": (
        SLURM,
        "--devices 2 --nodes 2",
        "cannot train with --accelerator cpu --devices 2 --nodes 2",
    ),
    "an allocation of other tasks": (
        {**SLURM, "SLURM_NTASKS_PER_NODE": ""},
        "--devices 2",
        "cannot train with --accelerator cpu --devices 2 --nodes 1",
    ),
    "torchrun with other ranks": (TORCHRUN, "--devices 2", "does not match the world size (4)"),
    "data that are nowhere": (
        {"PYRO_LATENTS_DATA": "/nowhere"},
        "--data mnist",
        "MNIST not found in /nowhere",
    ),
    "data in a file": (
        {"PYRO_LATENTS_DATA": "/etc/hostname"},
        "--data mnist",
        "MNIST not found in /etc/hostname",
    ),
}


@pytest.mark.parametrize(
    ("variables", "options", "words"), SURROUNDINGS.values(), ids=SURROUNDINGS
)
def test_surroundings_that_do_not_fit(variables, options, words, refused, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused(f"{TRAIN} --out run {options}", words)


def test_event_files_need_their_package(refused, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(tensorboard_of_lightning, name, False)
    refused(f"{TRAIN} --out run --tensorboard", "pip install tensorboard.")


def test_a_terminal_without_the_letters_of_a_name():
    command = [sys.executable, "-m", "pyro_latents", "list"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Viv?, thesis" in done.stdout


def test_patience_outlasts_the_epochs(tmp_path):
    """Early stopping without enough epochs to stop early in is no mistake."""
    command = f"train vae-digits {SMALL} --epochs 1 --patience 5 --out {tmp_path / 'run'}"
    assert main(command.split()) == 0
    assert main(f"evaluate {tmp_path / 'run'} --particles 2 --limit-test 3".split()) == 0
