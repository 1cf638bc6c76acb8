import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_latents.errors import UserError
from pyro_latents.reproduce.experiment import Budget, Context
from pyro_latents.reproduce.tables import experiments, reproduce

MADE = {f"connor-{data}{aids}" for data in ("circles", "swiss-roll") for aids in ("", "-aids")}


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_has_three_budgets_and_a_line_on_it(name):
    found = experiments()[name]
    assert [budget.name for budget in found.budgets] == ["quick", "hours", "paper"]
    assert len(found.summary) > 10


ERRORS = {
    "table": ("vive-tabel1", {}, "unknown table 'vive-tabel1': did you mean vive-table1"),
    "budget": ("vive-table1", {"budget": "quik"}, "unknown budget 'quik': did you mean quick"),
    "data": (
        "vive-table1",
        {"data": "mnits"},
        "cannot be run on --data mnits: did you mean mnist",
    ),
    "sense": ("vive-table1", {"data": "swiss-roll"}, "--data swiss-roll: there are mnist, "),
    "own": ("connor-circles", {"data": "mnist"}, "makes its own data: leave --data away"),
    "turned": ("vive-rotated", {"data": "svhn"}, "there are mnist, digits, rotated-mnist"),
}


@pytest.mark.parametrize(("name", "options", "message"), ERRORS.values(), ids=ERRORS)
def test_a_mistake_is_said_in_a_line(name, options, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        reproduce(name, out=tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_some_make_their_data():
    assert {name for name, found in experiments().items() if not found.takes} == MADE


@pytest.mark.parametrize("name", sorted(experiments().keys() - MADE))
def test_data_that_are_not_there_are_missed_at_once(name, tmp_path):
    began = time.perf_counter()
    with pytest.raises(UserError, match="not found in"):
        reproduce(name, out=tmp_path / "out", data_dir=tmp_path)
    assert time.perf_counter() - began < 5
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file: give another --out"):
        reproduce("connor-circles", out=tmp_path / "out")


def test_the_words_of_a_folder_are_made_one(tmp_path):
    budget = Budget(name="tiny", images=7, steps=3, numbers={"z_dim": 4, "epochs": 2})
    job = Context(budget, tmp_path, seed=5).job(
        "vae-digits", "VAE (4), a_b 0.5", numbers={"z_dim": 3}
    )
    assert job.folder == tmp_path / "vae-4-a-b-0.5"
    assert (job.images, job.seed) == (7, 5)
    story = job.build().story
    assert (story.z_dim, story.epochs) == (3, 2)
    settings = job.settings("z_dim")
    assert (settings["z_dim"], settings["steps"], settings["training_images"]) == (3, 3, 7)


def test_a_job_is_taken_up_where_it_stopped(tmp_path):
    budget = Budget(name="tiny", images=50, steps=2, numbers={"networks": "dense", "z_dim": 2})
    job = Context(budget, tmp_path, precision="64-true").job("vae-digits", "vae")
    first = job.train()
    assert first.config["training"]["precision"] == job.settings()["precision"] == "64-true"
    written = (first.path / "checkpoint.ckpt").stat().st_mtime_ns
    assert (job.train().path / "checkpoint.ckpt").stat().st_mtime_ns == written


TRAINING = """
import sys
from pyro_latents.reproduce.tables import reproduce

if __name__ == "__main__":
    reproduce("vive-figure9", out=sys.argv[1], budget="hours", data="digits", processes=2)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")
def test_a_killed_reproduction_leaves_no_training(tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(TRAINING)
    parent = subprocess.Popen([sys.executable, script, out], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(out.glob("*/config.yaml"))) == 2, 240)
        processes = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    finally:
        parent.kill()
        parent.wait()
    assert len(processes) >= 2
    wait_for(lambda: not any(is_running(process) for process in processes), 30)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
