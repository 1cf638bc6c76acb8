"""Where names of other packages are documented: tables, from which Sphinx's files are made.

A table, ``NAME.txt``, has the address of a site on its first line, then a line for each name that
our docstrings refer to: ``kind name page``, where ``$`` at the end of a page stands for the name.
What is imported under another name than it is documented under is listed as it is imported.
"""

import zlib
from pathlib import Path

# What Sphinx asks of the first four lines.
HEAD = "# Sphinx inventory version 2\n# Project: {0}\n# Version: \n# compressed by zlib\n"


def mapping(tables: Path, made: Path) -> dict[str, tuple[str, str]]:
    """Make an inventory of each table and return ``intersphinx_mapping``."""
    made.mkdir(parents=True, exist_ok=True)
    found = {}
    for table in sorted(tables.glob("*.txt")):
        address, *lines = table.read_text().splitlines()
        path = made / f"{table.stem}.inv"
        path.write_bytes(inventory(table.stem, lines))
        found[table.stem] = (address, str(path))
    return found


def inventory(project: str, lines: list[str]) -> bytes:
    """Return Sphinx's form of the lines of a table."""
    entries = []
    for line in filter(None, lines):
        kind, name, page = line.split()
        entries.append(f"{name} py:{kind} 1 {page} -\n")
    return HEAD.format(project).encode() + zlib.compress("".join(entries).encode())
