"""Keep what a run printed, and write every table of RESULTS.md from what is kept.

    python benchmarks/record.py results/feige-table1/feige-table1.json
    python benchmarks/record.py runs/a/comparison.json --name compare-vae-mnist --command "..."
    python benchmarks/record.py

A record is the JSON that an experiment, a comparison, a check, an evaluation or a benchmark wrote,
copied to ``benchmarks/records`` with its command, date and hardware. RESULTS.md holds a block for
each, between ``<!-- record: NAME -->`` and ``<!-- /record -->``; the words around the blocks are
written by hand. Without a file, all blocks are written anew.
"""

import argparse
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from pyro_latents.files import write_json, write_text
from pyro_latents.reproduce.experiment import hardware

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "records"
RESULTS = ROOT / "RESULTS.md"
BLOCK = re.compile(r"<!-- record: (?P<name>[\w.-]+) -->\n.*?<!-- /record -->", re.DOTALL)
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


def written(text: str) -> str:
    """Return the text of RESULTS.md with every block written anew.

    Raises:
        SystemExit: if a block has no record, or a record no block.
    """
    kept = {path.stem: json.loads(path.read_text()) for path in sorted(RECORDS.glob("*.json"))}
    names = [match["name"] for match in BLOCK.finditer(text)]
    for name in sorted(kept.keys() ^ set(names)):
        missing = "record" if name in names else "block"
        raise SystemExit(f"{name} has no {missing}: RESULTS.md and {RECORDS.name} go together.")
    return BLOCK.sub(lambda match: block(match["name"], kept[match["name"]]), text)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def main() -> None:
    """Keep a file, where one is given, and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="the JSON file of a run")
    parser.add_argument("--name", help="of the record (default: that of the file)")
    parser.add_argument("--command", help="what printed the figures, where the file does not say")
    given = parser.parse_args()
    if given.file:
        print(record(given.file, given.name, given.command))
    write_text(RESULTS, written(RESULTS.read_text()))


if __name__ == "__main__":
    main()
