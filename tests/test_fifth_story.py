"""The package of a fifth story that is there to be copied, from the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[1] / "tutorials" / "template"
RECIPE = "laplace-vae-digits"
SHORT = ["--steps", "2", "--batch-size", "50", "--limit-train", "200"]
PROGRAM = """
import json, sys
from pyro_latents.cli import main

for command in json.loads(sys.argv[1]):
    if main(command):
        sys.exit(f"failed: {command}")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package, installed beside this one."""
    # Building leaves files in the folder.
    folder = shutil.copytree(TEMPLATE, tmp_path_factory.mktemp("package") / "template")
    target = folder / "installed"
    pip = "pip install --quiet --no-deps --no-build-isolation --no-index --target".split()
    subprocess.run([sys.executable, "-m", *pip, target, folder], check=True, capture_output=True)
    return target


def environment(installed):
    return {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}


def test_it_is_trained_evaluated_checked_compared_and_reported(installed, tmp_path):
    runs = {guide: str(tmp_path / guide) for guide in ("paper", "flow")}
    commands = [["list"]]
    for guide, out in runs.items():
        own = ["--guide", guide, "--z-dim", "3", "--out", out]
        commands.append(["train", RECIPE, *own, *SHORT])
    run = runs["paper"]
    few = ["--particles", "3"]
    commands += [
        ["evaluate", run, *few, "--limit-test", "20"],
        ["check", run, "--images", "20", "--draws", "5"],
        ["compare", *runs.values(), *few, "--points", "10", "--out", str(tmp_path / "compared")],
        ["report", run],
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(commands)],
        env=environment(installed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(rf"^{RECIPE} +laplace-vae +digits +paper, mean-field", done.stdout, re.M)
    assert "elbo" in json.loads((Path(run) / "metrics.json").read_text())
    assert any((tmp_path / "compared").iterdir())
    assert "<svg" in (Path(run) / "report.html").read_text()


def test_its_own_tests_pass(installed):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TEMPLATE / "tests"]
    done = subprocess.run(
        command,
        env=environment(installed),
        cwd=installed.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
