"""One page on a run, with everything in it."""

import base64
import json
import re
import shutil
from html import escape
from html.parser import HTMLParser

import pytest
import torch
from browser import needs_browser, opened

from pyro_latents import zoo
from pyro_latents.cli import main
from pyro_latents.live import Live, Sliders, Step
from pyro_latents.runs.report import CAPTIONS
from pyro_latents.stories.story import Story
from pyro_latents.stories.vae import VAEStory


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
    assert not re.search(r"https?://", page)
    text = "".join(checker.text)
    assert "a & b" in text
    assert "log_likelihood" in text
    assert "pyro-latents check" in text
    assert f"{run.metrics['elbo']:.2f} ± {run.metrics['elbo_se']:.2f}nats per data point" in text
    assert "elbo_se" not in text
    # No number is rounded to nothing.
    assert "learning_rate0.001" in text
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
    for cell in ("\u2264 0.02", "50.0 %", "< 0.001"):
        assert f'<td class="short">{escape(cell)}</td>' in page
    assert "2/(draws + 1) = 0.02" in page


def test_a_page_may_be_written_elsewhere(run, tmp_path, capsys):
    before = run.report().read_text()
    shutil.rmtree(run.path / "figures")
    (run.path / "report.html").unlink()
    files = set(run.path.rglob("*"))
    out = tmp_path / "pages" / "page.html"
    assert main(["report", str(run.path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert set(run.path.rglob("*")) == files
    page = out.read_text()
    assert page.count("<img") == before.count("<img") > 1
    assert main(["report", str(run.path), "--out", "/etc/hostname/page.html"]) == 2
    assert "/etc/hostname cannot be written: give another --out" in capsys.readouterr().err


def test_a_story_that_declares_nothing_live_has_the_rest(run, monkeypatch):
    assert 'id="live"' in run.report().read_text()
    monkeypatch.setattr(VAEStory, "live", Story.live)
    page = run.report().read_text()
    assert 'id="live"' not in page
    assert "<script" not in page
    assert "<h2>Model</h2>" in page


def test_what_a_page_cannot_do_is_said_in_its_place(run, monkeypatch):
    reach = torch.ones(3)
    step = Step(lambda x: x.cumsum(1), ["x"], ["y"])
    live = Live("", [Sliders("x", "x", -reach, reach)], [step], [])
    monkeypatch.setattr(VAEStory, "live", lambda *_: live)
    page = run.report().read_text()
    assert "<p>This run has no live part: a page has no cumsum.</p>" in page
    assert "<h2>Model</h2>" in page


def test_a_folder_that_is_no_run_has_no_report(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


@needs_browser
def test_a_browser_shows_the_page_without_an_error(run, tmp_path):
    run.evaluate(particles=5, likelihood_points=5, limit_test=5)
    run.plot()
    assert main(["report", str(run.path)]) == 0
    broken = tmp_path / "broken.html"
    broken.write_text("<script>console.error('seen')</script>")
    _, console = opened(broken, tmp_path)
    assert console, "the browser does not tell of errors, so that this test could not fail"
    shown, console = opened(run.path / "report.html", tmp_path)
    assert not console
    assert shown.count("<img") == (run.path / "report.html").read_text().count("<img")
