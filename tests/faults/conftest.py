"""What every table of bad inputs and faults asserts: one line, its words, and nothing lost."""

import os
import shlex
import shutil
from pathlib import Path

import pytest

from pyro_latents.cli import main

SMALL = (
    "--networks dense --hidden-dims [8] --batch-size 20 --limit-train 60 --validation 20 "
    "--accelerator cpu"
)


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, by path: the bytes of files, None for folders."""
    found: dict[str, bytes | None] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path).encode()
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """A run of two epochs that has been measured, not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    for command in (
        f"train vae-digits {SMALL} --epochs 2 --out {run}",
        f"evaluate {run} --particles 3 --limit-test 4 --likelihood-points 4",
    ):
        assert main(shlex.split(command)) == 0
    return run


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of it, in the folder that the test works in."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """Return what runs a command that is wrong, and asserts how it ends."""
    monkeypatch.chdir(tmp_path)

    def check(command: str, words: str, status: int = 2) -> None:
        before = contents(tmp_path)
        capfd.readouterr()
        assert main(shlex.split(command)) == status
        error = capfd.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert error.startswith("pyro-latents: ")
        assert contents(tmp_path) == before

    return check
