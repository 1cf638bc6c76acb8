"""Directives that show what a benchmark measured for a chapter, from ``docs/measured/NAME.json``.

``measured`` is its table, and ``measured-by`` the command, date and hardware.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stories import Shown, shown, table

MEASURED = Path(__file__).resolve().parents[1] / "measured"


def read(name: str) -> dict[str, Any]:
    """Return what was measured."""
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text())
    return found


class Measured(Shown):
    """The table."""

    classes = ("figures",)
    made_of = (MEASURED,)

    def lines(self, name: str) -> Iterator[str]:
        """Return a line for each row."""
        found = read(name)
        rows = [tuple(map(shown, row)) for row in found["rows"]]
        yield from table(tuple(found["columns"]), rows)


class MeasuredBy(Shown):
    """What measured it."""

    made_of = (MEASURED,)

    def lines(self, name: str) -> Iterator[str]:
        """Return the command and its circumstances."""
        found = read(name)
        yield from ("```text", found["command"], "```", "")
        yield f"{found['date']}, {found['hardware']}; {found['said']}"


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("measured", Measured)
    app.add_directive("measured-by", MeasuredBy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
