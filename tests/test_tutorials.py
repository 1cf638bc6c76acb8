"""Every tutorial runs, in a short form, and its notebook has the same cells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "tutorials"
SOURCES = sorted(TUTORIALS.glob("[0-9]*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_runs(source, tmp_path):
    short = {"PYRO_LATENTS_SHORT": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(source)],
        cwd=tmp_path,
        env={**os.environ, **short},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not any(tmp_path.iterdir()), "a tutorial leaves nothing behind"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_has_its_cells_and_its_outputs(source):
    notebook = json.loads(source.with_suffix(".ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    text = source.read_text()
    for cell in notebook["cells"]:
        lines = "".join(cell["source"]).splitlines()
        for line in lines:
            assert line.strip() in text, f"{source.name} was changed after its notebook was made"
    assert text.count("# %%\n") == len(code)
    pictures = [o for cell in code for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert pictures
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
