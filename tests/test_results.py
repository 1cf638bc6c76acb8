"""RESULTS.md and its pages have what the records say."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "RESULTS.md", *sorted((ROOT / "docs" / "results").glob("*.md"))]
# Of RESULTS.md, which stays about two screens long.
LINES = 115


@pytest.fixture(scope="module")
def recorder():
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def elsewhere(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "RECORDS", tmp_path / "records")
    return tmp_path


@pytest.fixture(scope="module")
def headlines(recorder):
    return yaml.safe_load(recorder.HEADLINES.read_text())


def test_every_table_is_that_of_its_record(recorder, headlines):
    texts = recorder.pages()
    written = recorder.written(texts, headlines)
    old = [str(path) for path, text in texts.items() if written[path] != text]
    assert not old, "run: python benchmarks/record.py"


def test_the_front_table_has_every_page_and_every_experiment(recorder, headlines):
    told = re.findall(r"<!-- front: (\w+) -->", PAGES[0].read_text())
    assert sorted(told) == sorted(headlines) == [path.stem for path in PAGES[1:]]
    named = {"", *re.findall(r"[\w-]+", recorder.HEADLINES.read_text())}
    for name, kept in recorder.records().items():
        # Of several records of an experiment one will do.
        assert kept.get("experiment", "") in named, f"{name} has no row in {recorder.HEADLINES}"


def test_the_front_table_stays_short():
    assert len(PAGES[0].read_text().splitlines()) <= LINES


def places(path):
    """The headings of a page, as GitHub names them in links."""
    for heading in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text()):
        name, _, place = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not place or place in places(target), link


def test_records_name_no_folder_of_the_machine():
    for path in (ROOT / "benchmarks" / "records").glob("*.json"):
        assert "/home" not in path.read_text(), path
        command = json.loads(path.read_text())["command"]
        assert "--data-dir" not in command or "--data-dir DATA" in command


FORMS = {
    "rows": ({"rows": [{"a": 1, "b": 0.5}, {"a": 2}], "extra": 0.25}, ["a", "b"], 3),
    "runs side by side": ({"x": {"elbo": -1.0}, "y": {"elbo": -2.0}}, ["figure", "x", "y"], 1),
    "metrics": ({"elbo": -1.0, "points": 3}, ["figure", "value"], 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_figures_becomes_a_table(recorder, form):
    found, columns, size = FORMS[form]
    assert recorder.as_table(found)[0] == columns
    assert len(recorder.as_table(found)[1]) == size


def written(recorder, text):
    """A page with its blocks written anew."""
    return recorder.written({Path("page.md"): text}, {})[Path("page.md")]


def test_a_file_is_kept_and_its_block_written(recorder, elsewhere):
    path = elsewhere / "metrics.json"
    path.write_text(json.dumps({"elbo": -98.765}))
    recorder.record(path, "vae", "pyro-latents evaluate RUN --data-dir /data/x")
    text = written(recorder, "before\n<!-- record: vae -->\n<!-- /record -->\nafter")
    assert "pyro-latents evaluate RUN --data-dir DATA" in text
    assert "| elbo | -98.77 |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert written(recorder, text) == text


def test_what_does_not_fit_together_is_named(recorder, elsewhere):
    path = elsewhere / "metrics.json"
    with pytest.raises(SystemExit, match="not a JSON file"):
        recorder.record(path, None, None)
    path.write_text('{"elbo": -1.0}')
    with pytest.raises(SystemExit, match="give --command"):
        recorder.record(path, None, None)
    recorder.record(path, None, "a command")
    with pytest.raises(SystemExit, match="metrics has 0 blocks"):
        written(recorder, "no blocks")
    with pytest.raises(SystemExit, match="a has no record"):
        written(recorder, "<!-- record: a -->\n<!-- /record -->")


KEPT = {
    "table": {
        "experiment": "paper-table",
        "budget": "quick",
        "seed": 0,
        "date": "2026-11-21",
        "columns": ["model", "size", "paper", "+-", "ours", "+-"],
        "rows": [["VAE", 10, 1.0, 0.5, 2.25, None], ["VAE", 100, 3.0, 0.25, 4.0, 0.125]],
    }
}
ROW = {"what": "Table 1: accuracy", "at": "table-1", "record": "table"}


def test_a_headline_has_the_cells_that_it_names(recorder):
    row = {**ROW, "paper": "{VAE; 10; paper} ± {VAE; 10; paper +1} %"}
    row["ours"] = "{VAE; 10; ours} ± {VAE; 10; ours +1} ({table | VAE; 100; ours})"
    cells = recorder.headline("page", row, KEPT)
    assert cells["what"] == "[Table 1](docs/results/page.md#table-1): accuracy"
    assert cells["paper"] == "1.00 ± 0.50 %"
    # Without an error no sign of one is left.
    assert cells["ours"] == "2.25 (4.00)"
    assert cells["budget, seeds"] == "quick, 1 seed"
    assert cells["command"] == "`paper-table`"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("{VAE; ours}", "2 rows that begin with"),
        ("{VAE; 20; ours}", "0 rows"),
        ("{VAE; 10; theirs}", "0 columns 'theirs'"),
        ("{VAE; 10; +-}", "2 columns"),
        ("{gone | VAE; 10; ours}", "no record gone"),
    ],
)
def test_a_cell_that_is_not_there_is_named(recorder, cell, told):
    with pytest.raises(SystemExit, match=re.escape(told)):
        recorder.headline("page", {**ROW, "ours": cell}, KEPT)


def test_what_is_said_of_a_record_goes_with_it(recorder):
    row = {**ROW, "until": "2026-11-29", "caveat": "an earlier recipe"}
    cells = recorder.headline("page", row, KEPT)
    assert cells["budget, seeds"] == "quick, 1 seed, **an earlier recipe**"
    new = {**KEPT["table"], "date": "2026-11-29", "settings": {"seeds": 3}}
    assert recorder.headline("page", row, {"table": new})["budget, seeds"] == "quick, 3 seeds"


def test_seeds_are_those_of_the_row_with_fewest(recorder):
    kept = {"seed": 0, "columns": ["model", "trials"], "rows": [["a", 5], ["b", 3]]}
    assert recorder.seeds(kept) == "3 seeds"
    assert recorder.seeds({"columns": [], "rows": []}) == ""
