"""Run the source of a notebook cell by cell, and say what each cell shows: rows and pictures.

    python notebook_cells.py SOURCE.py SHOWN.json

What is shown is told as in a notebook: what is printed, the value of a last expression, and
pictures. Of rows their words alone are kept, as numbers are those of one training, and of pictures
how wide they are for their height.
"""

import ast
import io
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MARK = re.compile(r"^# %%(?P<kind>.*)$", re.MULTILINE)
NUMBER = re.compile(r"(<=?)?\s*[-+±]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?%?|\bnan\b")
NUMBERS = re.compile(r"#(,? #)+")
# What is as wide as the numbers in it.
SPACES = re.compile(r"[\s\-─=]+")

# Around a picture of a notebook, in inches.
PAD = 0.1


def code_cells(source: str) -> list[str]:
    """Return the code of each cell of a source in jupytext's percent form."""
    marks = list(MARK.finditer(source))
    ends = [mark.start() for mark in marks[1:]] + [len(source)]
    return [
        source[mark.end() : end].strip("\n")
        for mark, end in zip(marks, ends, strict=True)
        if not mark["kind"].strip()
    ]


def rows(text: str) -> list[str]:
    """Return the words of each line that has some; all numbers are one sign."""
    found = [SPACES.sub(" ", NUMBER.sub(" #", line)).strip() for line in text.splitlines()]
    return [NUMBERS.sub("#", row) for row in found if row.strip(" #")]


def value(text: str) -> list[str]:
    """Return the words of the value of a cell, on one line, however it is laid out.

    What other packages say of their objects is theirs: of it, the name of the object is kept.
    """
    return rows(text.split()[0] if text.startswith("<") else " ".join(text.split()))


def ratio(figure: Any) -> float:
    """Return how wide a figure is for its height, as a notebook cuts it."""
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    box = figure.get_tightbbox(canvas.get_renderer())
    return float((box.width + 2 * PAD) / (box.height + 2 * PAD))


def shown(cells: list[str]) -> list[dict[str, Any]]:
    """Run the cells one after the other, and return what each of them shows."""
    known: dict[str, Any] = {"__name__": "__main__"}
    pictures: list[float] = []

    def show(*_: Any, **__: Any) -> None:
        pictures.extend(ratio(plt.figure(number)) for number in plt.get_fignums())
        plt.close("all")

    found = []
    for cell in cells:
        tree, last = ast.parse(cell), None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        with redirect_stdout(io.StringIO()) as printed, patch.object(plt, "show", show):
            exec(compile(tree, "<cell>", "exec"), known)
            result = None if last is None else eval(compile(last, "<cell>", "eval"), known)
        # A notebook shows what is left open at the end of a cell.
        show()
        told = rows(printed.getvalue())
        if isinstance(result, Figure):
            pictures.append(ratio(result))
        elif result is not None:
            told += value(repr(result))
        found.append({"rows": told, "pictures": pictures.copy()})
        pictures.clear()
    return found


if __name__ == "__main__":
    source, target = sys.argv[1:]
    Path(target).write_text(json.dumps(shown(code_cells(Path(source).read_text()))))
