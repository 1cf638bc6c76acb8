"""One page on a run, with everything in it."""

import base64
import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser

import pytest

from pyro_latents import zoo
from pyro_latents.cli import main
from pyro_latents.runs.report import CAPTIONS


class Checker(HTMLParser):
    """Collects what a page loads, and whether its elements close."""

    VOID = {"meta", "link", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = zoo.recipe("vae-digits", networks="dense", z_dim=2)
    return recipe.train(tmp_path_factory.mktemp("report") / "a & b", steps=5, progress=False)


def test_the_page_is_whole_and_loads_nothing(run, capsys):
    run.evaluate(particles=5, likelihood_points=5, limit_test=5)
    assert main(["report", str(run.path)]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (run.path / "report.html").read_text()
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert checker.loaded
    assert all(value.startswith("data:") for value in checker.loaded)
    assert not re.search(r"<script|https?://", page)
    text = "".join(checker.text)
    assert "a & b" in text
    assert "log_likelihood" in text
    assert "pyro-latents check" in text
    assert f"{run.metrics['elbo']:.2f}nats per data point" in text
    # The graph of the model is a picture of the page's own.
    assert page.count("<svg") == page.count("</svg>") == 1
    assert {"z", "x", "data"} <= set(checker.text)
    assert "step 5" in text


def test_pictures_are_in_the_order_of_their_captions_which_go_by_name(run):
    folder = run.path / "checks"
    folder.mkdir(exist_ok=True)
    rows = [
        {"check": "per image", "statistic": "ink", "p_value": 2 / 101, "outside": 0.5},
        {"check": "population", "statistic": "ink", "p_value": 1e-9, "outside": None},
    ]
    said = {"images": 3, "draws": 100, "rows": [{**row, "meaning": "of ink"} for row in rows]}
    (folder / "p_values.json").write_text(json.dumps(said))
    names = ["hidden_u_values", "population", "replicates", "u_values", "zz_own"]
    for name in names:
        (folder / f"{name}.png").write_bytes(b"picture of " + name.encode())
    try:
        page = run.report().read_text()
    finally:
        shutil.rmtree(folder)
    order = ["replicates", "u_values", "hidden_u_values", "population", "zz_own"]
    content = [base64.b64encode(b"picture of " + name.encode()).decode() for name in order]
    places = [page.index(picture) for picture in content]
    assert places == sorted(places)
    after = page[places[2] :]
    assert CAPTIONS["hidden_u_values"] in after[: after.index("</figure>")]
    # Shares are per cent, and no p-value is zero.
    for cell in ("<= 0.02", "50.0 %", "< 0.001"):
        assert f"<td>{escape(cell)}</td>" in page
    assert "2/(draws + 1) = 0.02" in page


def test_a_folder_that_is_no_run_has_no_report(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
OFFLINE = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is on the path")
def test_a_browser_shows_the_page_without_an_error(run, tmp_path):
    run.evaluate(particles=5, likelihood_points=5, limit_test=5)
    run.plot()
    assert main(["report", str(run.path)]) == 0
    (run.path / "broken.html").write_text("<script>console.error('seen')</script>")
    logs, pages = {}, {}
    for name in ("report", "broken"):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += [*OFFLINE, f"--user-data-dir={tmp_path / name}"]
        command += ["--enable-logging=stderr", "--dump-dom", (run.path / f"{name}.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        logs[name] = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        pages[name] = done.stdout
    assert logs["broken"], "the browser does not tell of errors, so that this test could not fail"
    assert not logs["report"]
    assert pages["report"].count("<img") == (run.path / "report.html").read_text().count("<img")
