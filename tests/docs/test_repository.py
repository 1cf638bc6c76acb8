"""What is told in several files is told alike."""

import configparser
import re
from pathlib import Path

import yaml

import pyro_latents

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"


def read(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_the_version_is_the_same_everywhere():
    version = pyro_latents.__version__
    assert read("CITATION.cff")["version"] == version
    headings = re.findall(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", changelog(), re.MULTILINE)
    assert headings[0] == version


def changelog():
    return (ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_runs_what_ci_runs_on_every_python():
    job = read(".github/workflows/ci.yml")["jobs"]["ci"]
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    told = re.findall(r":: (3\.\d+)$", config["metadata"]["classifiers"], re.MULTILINE)
    assert job["strategy"]["matrix"]["python"] == told
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert re.search(r"^PYTHONS = (.*)$", (ROOT / "noxfile.py").read_text(), re.MULTILINE)[
        1
    ] == str(told).replace("'", '"')


def test_ci_runs_the_readme_test_command_word_for_word():
    tests = re.findall(r"^python3 -m venv .* -m pytest$", (ROOT / "README.md").read_text(), re.M)
    assert len(tests) == 1
    assert tests[0] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_forms_of_issues_have_what_github_asks_of_them():
    for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.stem == "config":
            continue
        assert {"name", "description", "body"} <= form.keys()
        names = [part["id"] for part in form["body"]]
        assert len(names) == len(set(names))
        assert all(part["attributes"].get("label") for part in form["body"])
