"""Every tutorial runs, in a short form, and its notebook shows what the source shows."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from notebook_cells import code_cells, rows, shown, value

TUTORIALS = Path(__file__).parents[1] / "tutorials"
SOURCES = sorted(TUTORIALS.glob("[0-9]*.py"))
CELLS = Path(__file__).with_name("notebook_cells.py")
# How far the sides of a picture may be off: a legend is as wide as what was found, say.
TOLERANCE = 0.2
# Of a PNG: its width and height, in four bytes each.
WIDTH, HEIGHT = slice(16, 20), slice(20, 24)


def in_notebook(outputs):
    """What the outputs of a cell are, as `notebook_cells.shown` tells them."""
    told, pictures = [], []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            png = base64.b64decode(data["image/png"])
            width, height = (int.from_bytes(png[side], "big") for side in (WIDTH, HEIGHT))
            pictures.append(width / height)
        elif output["output_type"] == "stream":
            told += rows("".join(output["text"]))
        else:
            told += value("".join(data.get("text/plain", "")))
    return {"rows": told, "pictures": pictures}


def differences(notebook, source):
    """What a cell of a notebook shows that its source does not, or the other way round."""
    if notebook["rows"] != source["rows"]:
        yield f"rows {notebook['rows']}, now {source['rows']}"
    mine, theirs = notebook["pictures"], source["pictures"]
    is_same = len(mine) == len(theirs) and mine == pytest.approx(theirs, rel=TOLERANCE)
    if not is_same:
        yield f"pictures {mine}, now {theirs}"


def code_of(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module", params=SOURCES, ids=lambda path: path.stem)
def tutorial(request, tmp_path_factory):
    """The source of a tutorial, its notebook, and what each cell of the source shows now."""
    source, folder = request.param, tmp_path_factory.mktemp("tutorial")
    short = {"PYRO_LATENTS_SHORT": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    target = folder / "shown.json"
    (folder / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(CELLS), str(source), str(target)],
        cwd=folder / "work",
        env={**os.environ, **short},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not any((folder / "work").iterdir()), "a tutorial leaves nothing behind"
    notebook = json.loads(source.with_suffix(".ipynb").read_text())
    return source, notebook, json.loads(target.read_text())


def test_the_notebook_has_its_cells(tutorial):
    source, notebook, _ = tutorial
    text = source.read_text()
    for cell in notebook["cells"]:
        for line in "".join(cell["source"]).splitlines():
            assert line.strip() in text, f"{source.name} was changed after its notebook was made"
    assert len(code_cells(text)) == len(code_of(notebook))


def test_the_notebook_shows_what_its_cells_show(tutorial):
    source, notebook, now = tutorial
    found = [in_notebook(cell["outputs"]) for cell in code_of(notebook)]
    assert sum(len(cell["pictures"]) for cell in found), "a tutorial has pictures"
    for number, (mine, theirs) in enumerate(zip(found, now, strict=True), start=1):
        apart = list(differences(mine, theirs))
        advice = f"run: python tutorials/build.py {source.stem}"
        assert not apart, f"cell {number} of {source.name} shows {'; '.join(apart)}; {advice}"


def test_the_notebook_has_no_error(tutorial):
    _, notebook, _ = tutorial
    outputs = [output for cell in code_of(notebook) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]


SOURCE = """# %% [markdown]
# # Words

# %%
import matplotlib.pyplot as plt
print("elbo   -91.25\\nkl       3.5")

# %%
plt.figure(figsize=(6, 3))
plt.plot([1, 2])
{"elbo": -91.25}
"""


def test_rows_and_pictures_of_each_cell_are_told():
    first, second = shown(code_cells(SOURCE))
    assert first == {"rows": ["elbo #", "kl #"], "pictures": []}
    assert second["rows"] == ["{'elbo': #}"]
    assert second["pictures"] == pytest.approx([2], rel=0.1)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("kl       3.5", "divergence 3.5"),
        ("kl       3.5", "kl   3.5\\ngap  1.0"),
        ("figsize=(6, 3)", "figsize=(6, 4)"),
        ("plt.plot([1, 2])", "plt.plot([1, 2])\nplt.figure(figsize=(6, 3))"),
        ('{"elbo": -91.25}', '{"bound": -91.25}'),
    ],
)
def test_a_change_of_what_is_shown_is_seen(was, now):
    before, after = (shown(code_cells(text)) for text in (SOURCE, SOURCE.replace(was, now)))
    assert [list(differences(a, b)) for a, b in zip(before, after, strict=True)] != [[], []]


def test_other_numbers_are_no_change():
    before, after = (shown(code_cells(t)) for t in (SOURCE, SOURCE.replace("91.25", "1_014.5")))
    assert [list(differences(a, b)) for a, b in zip(before, after, strict=True)] == [[], []]
