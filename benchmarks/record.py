"""Keep what a run printed, and write every table of results from what is kept.

    python benchmarks/record.py results/feige-table1/feige-table1.json
    python benchmarks/record.py runs/a/comparison.json --name compare-vae-mnist --command "..."
    python benchmarks/record.py

A record is the JSON that an experiment, a comparison, a check, an evaluation or a benchmark wrote,
copied to ``benchmarks/records`` with its command, date and hardware. A page in ``docs/results``
holds a block for each, between ``<!-- record: NAME -->`` and ``<!-- /record -->``. RESULTS.md has
a table for each page, between ``<!-- front: PAGE -->`` and ``<!-- /front -->``, of the cells that
``benchmarks/headlines.yaml`` names. The words around are written by hand. Without a file, all
blocks and tables are written anew.
"""

import argparse
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from pyro_latents.files import write_json, write_text
from pyro_latents.reproduce.experiment import hardware

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "records"
RESULTS = ROOT / "RESULTS.md"
PAGES = ROOT / "docs" / "results"
HEADLINES = ROOT / "benchmarks" / "headlines.yaml"
BLOCK = re.compile(r"<!-- record: (?P<name>[\w.-]+) -->\n.*?<!-- /record -->", re.DOTALL)
FRONT = re.compile(r"<!-- front: (?P<page>[\w-]+) -->\n.*?<!-- /front -->", re.DOTALL)
# A cell in the text of a headline, and the sign before it, which goes where the cell is empty.
CELL = re.compile(r"(?P<sign> ± )?\{(?:(?P<record>[\w.-]+) \| )?(?P<path>[^}]+)\}")
COLUMNS = ("what", "paper", "aim", "baseline", "ours", "budget, seeds", "command")
# Below this a figure is shown with two digits that count, above with two decimals.
SMALL = 0.1


def record(path: Path, name: str | None, command: str | None) -> Path:
    """Keep the figures of a file and return the record's path.

    Raises:
        SystemExit: if there is no file, or it names no command and none is given.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} is not a JSON file of figures: {error}.") from error
    if isinstance(found, dict) and "command" in found:
        kept = {key: value for key, value in found.items() if key != "figures"}
    elif command is None:
        raise SystemExit(f"{path} does not say what printed it: give --command.")
    else:
        columns, rows = as_table(found)
        kept = {"columns": columns, "rows": rows}
        kept |= {"date": date.today().isoformat(), "hardware": hardware()}
    kept["command"] = without_folders(command or found["command"])
    RECORDS.mkdir(exist_ok=True)
    target = RECORDS / f"{name or path.stem}.json"
    write_json(target, kept)
    return target


def without_folders(command: str) -> str:
    """Return a command with DATA for the folder of the data sets, wherever that was."""
    return re.sub(r"--data-dir[ =]\S+", "--data-dir DATA", command)


def as_table(found: Any) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of figures in any of the forms that the commands write."""
    if isinstance(found, dict) and isinstance(found.get("rows"), list):
        rows = [row if isinstance(row, dict) else dict(enumerate(row)) for row in found["rows"]]
        # What a statistic means is said by the command, and would fill the page here.
        columns = list(dict.fromkeys(key for row in rows for key in row if key != "meaning"))
        cells = [[row.get(key) for key in columns] for row in rows]
        rest = [
            [key, value, *[None] * (len(columns) - 2)]
            for key, value in found.items()
            if isinstance(value, float)
        ]
        return columns, cells + rest
    if all(isinstance(value, dict) for value in found.values()):
        names = list(dict.fromkeys(key for row in found.values() for key in row))
        return ["figure", *found], [[n, *[row.get(n) for row in found.values()]] for n in names]
    return ["figure", "value"], [[key, value] for key, value in found.items()]


def block(name: str, kept: dict[str, Any]) -> str:
    """Return the block of a record: command, circumstances and table."""
    known = [kept["date"], kept["hardware"]]
    if isinstance(kept.get("torch"), str):
        known.append(f"torch {kept['torch'].partition('+')[0]}")
    if "seed" in kept:
        known.append(f"seed {kept['seed']}")
    if "budget" in kept:
        known.append(f"{kept['budget']} budget")
    if "seconds" in kept:
        known.append(f"{kept['seconds']:.0f} s")
    lines = [f"<!-- record: {name} -->", "", f"    {kept['command']}", "", ", ".join(known) + "."]
    if "title" in kept:
        lines.append(f"{kept['title']}.")
    lines += ["", _line(kept["columns"]), _line(["---"] * len(kept["columns"]))]
    lines += [_line([shown(cell) for cell in row]) for row in kept["rows"]]
    lines += [text for note in kept.get("notes", []) for text in ("", note)]
    return "\n".join([*lines, "", "<!-- /record -->"])


def shown(cell: Any) -> str:
    """Return a cell as text."""
    if cell is None:
        return ""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.2f}" if cell == 0 or abs(cell) >= SMALL else f"{cell:.2g}"


def records() -> dict[str, dict[str, Any]]:
    """Return what is kept, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))}


def pages() -> dict[Path, str]:
    """Return the texts of RESULTS.md and of its pages."""
    return {path: path.read_text() for path in (RESULTS, *sorted(PAGES.glob("*.md")))}


def written(texts: dict[Path, str], headlines: dict[str, list[dict[str, Any]]]) -> dict[Path, str]:
    """Return texts with every block and every table written anew.

    Raises:
        SystemExit: if a record has no block, or not one, a block no record, or a headline no cell.
    """
    kept = records()
    names = [match["name"] for text in texts.values() for match in BLOCK.finditer(text)]
    for name in sorted({*kept, *names}):
        if name not in kept:
            raise SystemExit(f"{name} has no record: take its block off the page.")
        if names.count(name) != 1:
            raise SystemExit(
                f"{name} has {names.count(name)} blocks: put one, <!-- record: {name} --> and "
                f"<!-- /record --> on lines of their own, where it belongs in {PAGES}."
            )
    found = {}
    for path, text in texts.items():
        text = BLOCK.sub(lambda match: block(match["name"], kept[match["name"]]), text)
        found[path] = FRONT.sub(lambda match: _front(match["page"], headlines, kept), text)
    return found


def _front(page: str, headlines: dict[str, list[dict[str, Any]]], kept: dict[str, Any]) -> str:
    rows = [headline(page, row, kept) for row in headlines[page]]
    columns = [name for name in COLUMNS if any(row.get(name) for row in rows)]
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([row.get(name, "") for name in columns]) for row in rows]
    return "\n".join([f"<!-- front: {page} -->", *lines, "", "<!-- /front -->"])


def headline(page: str, row: dict[str, Any], kept: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a row of the front table, by column."""
    own = kept.get(row.get("record", ""), {})
    cells = {name: filled(str(row[name]), row, kept) for name in COLUMNS if name in row}
    linked, colon, rest = row["what"].partition(": ")
    cells["what"] = f"[{linked}](docs/results/{page}.md#{row['at']}){colon}{rest}"
    told = [row["budget"]] if "budget" in row else [own.get("budget"), seeds(own)]
    # What is said of a record of old does not hold of a later one.
    if "caveat" in row and ("until" not in row or own["date"] < str(row["until"])):
        told.append(f"**{row['caveat']}**")
    cells["budget, seeds"] = ", ".join(part for part in told if part)
    commands = row.get("command", own.get("experiment", "")).split(", ")
    cells["command"] = ", ".join(f"`{command}`" for command in commands if command)
    return cells


def filled(text: str, row: dict[str, Any], kept: dict[str, Any]) -> str:
    """Return the text of a headline with the cells that it names."""

    def found(match: re.Match[str]) -> str:
        cell = cell_of(match["record"] or row["record"], match["path"], kept)
        return "" if cell is None else f"{match['sign'] or ''}{shown(cell)}"

    return CELL.sub(found, text)


def cell_of(name: str, path: str, kept: dict[str, Any]) -> Any:
    """Return the cell of a record at ``first; second; column``, of the row that begins so.

    ``column +1`` is the cell to the right of that column, whose own name may be another's too.

    Raises:
        SystemExit: if the record has no such cell, or several.
    """
    if name not in kept:
        raise SystemExit(f"There is no record {name}: mend its headline in {HEADLINES}.")
    *start, column = path.split("; ")
    column, right = re.sub(r" \+\d+$", "", column), re.search(r" \+(\d+)$", column)
    columns, rows = kept[name]["columns"], kept[name]["rows"]
    rows = [row for row in rows if [shown(cell) for cell in row[: len(start)]] == start]
    if columns.count(column) != 1 or len(rows) != 1:
        raise SystemExit(
            f"{name} has {len(rows)} rows that begin with {start} and {columns.count(column)} "
            f"columns {column!r}, of {columns}: mend its headline in {HEADLINES}."
        )
    return rows[0][columns.index(column) + (int(right[1]) if right else 0)]


def seeds(kept: dict[str, Any]) -> str:
    """Return how many trainings a figure of a record is of: one, where only its seed is told."""
    told = kept.get("settings", {}).get("seeds", 1)
    for name in {"seeds", "trials"} & set(kept.get("columns", ())):
        told = min(row[kept["columns"].index(name)] for row in kept["rows"])
    if "seed" not in kept:
        return ""
    return "1 seed" if told == 1 else f"{told} seeds"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def main() -> None:
    """Keep a file, where one is given, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="the JSON file of a run")
    parser.add_argument("--name", help="of the record (default: that of the file)")
    parser.add_argument("--command", help="what printed the figures, where the file does not say")
    given = parser.parse_args()
    if given.file:
        print(record(given.file, given.name, given.command))
    for path, text in written(pages(), yaml.safe_load(HEADLINES.read_text())).items():
        write_text(path, text)


if __name__ == "__main__":
    main()
