"""Make the notebooks from their sources: run every cell and keep what it shows.

    pip install -e ".[tutorials]" && python tutorials/build.py [01_svi_by_hand ...]

The sources, `NN_name.py`, are what is edited and reviewed. Without names all are built.
"""

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SECONDS = 900


def build(source: Path) -> Path:
    """Run a source as a notebook and write it beside, whole."""
    notebook = jupytext.read(source)
    options = {"timeout": SECONDS, "kernel_name": "python3"}
    # What a cell prints is one output, however it was buffered.
    NotebookClient(notebook, coalesce_streams=True, **options).execute()
    for cell in notebook.cells:
        # When each cell ran would make every build a change.
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # Progress bars are for whoever waits.
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    target = source.with_suffix(".ipynb")
    beside = target.with_name(f".{target.name}")
    nbformat.write(notebook, beside)
    return beside.replace(target)


if __name__ == "__main__":
    named = [HERE / f"{name}.py" for name in sys.argv[1:]]
    for path in named or sorted(HERE.glob("[0-9]*.py")):
        print(build(path))
