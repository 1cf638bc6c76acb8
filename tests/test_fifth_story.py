"""The story of tutorial 8, in a package of its own, from the command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "tutorials" / "08_your_own_story.py"
RECIPE = "mixture-vae-digits"
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
    """The package that the tutorial describes, installed beside this one."""
    folder = tmp_path_factory.mktemp("package")
    text = TUTORIAL.read_text()
    cells = [part.split("# %% [markdown]")[0] for part in text.split("# %%\n")[1:]]
    recipe = re.search(r"^DIGITS = .*$", text, re.MULTILINE)[0]
    (folder / "mixture_vae.py").write_text("\n".join([*cells[:3], recipe]))
    lines = text.split("that names the recipe:\n")[1].split("# After")[0].splitlines()
    project = "\n".join(line.removeprefix("#").strip() for line in lines)
    (folder / "pyproject.toml").write_text(project)
    target = folder / "installed"
    pip = "pip install --quiet --no-deps --no-build-isolation --no-index --target".split()
    subprocess.run([sys.executable, "-m", *pip, target, folder], check=True, capture_output=True)
    return target


def test_it_is_trained_evaluated_checked_and_compared(installed, tmp_path):
    runs = {guide: str(tmp_path / guide) for guide in ("paper", "flow")}
    commands = [["list"]]
    for guide, out in runs.items():
        own = ["--guide", guide, "--components", "3", "--out", out]
        commands.append(["train", RECIPE, *own, *SHORT])
    run = runs["paper"]
    few = ["--particles", "3"]
    commands += [
        ["evaluate", run, *few, "--limit-test", "20"],
        ["check", run, "--images", "20", "--draws", "5"],
        ["compare", *runs.values(), *few, "--points", "10", "--out", str(tmp_path / "compared")],
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(rf"^{RECIPE} +mixture-vae +digits +paper, mean-field", done.stdout, re.M)
    assert "elbo" in json.loads((Path(run) / "metrics.json").read_text())
    assert any((tmp_path / "compared").iterdir())
