"""RESULTS.md has what the records say."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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


def test_every_table_is_that_of_its_record(recorder):
    text = (ROOT / "RESULTS.md").read_text()
    assert recorder.written(text) == text, "run: python benchmarks/record.py"


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


def test_a_file_is_kept_and_its_block_written(recorder, elsewhere):
    path = elsewhere / "metrics.json"
    path.write_text(json.dumps({"elbo": -98.765}))
    recorder.record(path, "vae", "pyro-latents evaluate RUN --data-dir /data/x")
    text = recorder.written("before\n<!-- record: vae -->\n<!-- /record -->\nafter")
    assert "pyro-latents evaluate RUN --data-dir DATA" in text
    assert "| elbo | -98.77 |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert recorder.written(text) == text


def test_what_does_not_fit_together_is_named(recorder, elsewhere):
    path = elsewhere / "metrics.json"
    with pytest.raises(SystemExit, match="not a JSON file"):
        recorder.record(path, None, None)
    path.write_text('{"elbo": -1.0}')
    with pytest.raises(SystemExit, match="give --command"):
        recorder.record(path, None, None)
    recorder.record(path, None, "a command")
    with pytest.raises(SystemExit, match="metrics has no block"):
        recorder.written("no blocks")
