"""A run on other data than those of its training: what is found there stays with them."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from pyro_latents import zoo
from pyro_latents.cli import main
from pyro_latents.data.digits import digits
from pyro_latents.errors import UserError
from pyro_latents.runs.folder import REFERENCE

LIMITS = {"particles": 2, "likelihood_points": 2, "limit_test": 4}
QUIET = {"progress": False, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run():
    """A run of digits, measured."""
    recipe = zoo.recipe("vae-digits", networks="dense", limit_train=60, validation=20)
    run = recipe.train("digits", steps=2, **QUIET)
    run.evaluate(**LIMITS)
    return run


def test_figures_of_two_data_sets_are_never_mixed(run):
    before = run.metrics
    turned = zoo.open_run("digits", data="rotated-digits")
    assert turned.metrics == {}
    found = turned.evaluate(**LIMITS)
    assert turned.path == Path("digits/on-rotated-digits")
    assert zoo.open_run("digits", data="rotated-digits").metrics == found != before
    assert run.metrics == zoo.open_run("digits", data="digits").metrics == before


def test_packaged_figures_are_those_of_the_card_alone():
    name = "vae-mnist"
    assert zoo.pretrained(name).metrics
    here = zoo.pretrained(name, data="digits", out="here")
    assert here.metrics == {}
    found = here.evaluate(**LIMITS)
    assert Path("here/on-digits/metrics.json").exists()
    assert here.metrics == found
    assert zoo.pretrained(name, out="here").metrics == zoo.pretrained(name).metrics


def test_a_run_says_what_it_is_measured_on(run):
    turned = zoo.open_run("digits", data="rotated-digits")
    said = repr(turned)
    assert "data     rotated-digits, trained on digits, grey images of 28 x 28" in said
    assert "figures  none yet" in said
    assert "data     digits, grey" in repr(run)
    page = turned.report().read_text()
    assert "data rotated-digits, trained on digits, seed 0" in page
    assert "pyro-latents evaluate digits --data rotated-digits" in page
    assert turned.report() == Path("digits/on-rotated-digits/report.html")


def test_data_of_ones_own_have_folders_of_their_own(run, place):
    x = digits().test.x
    for name in ("one", "two"):
        (place / name / "pictures").mkdir(parents=True)
        for i, image in enumerate(x[:12]):
            path = place / name / "pictures" / f"{i}.png"
            Image.fromarray((255 * image[0]).byte().numpy()).save(path)
    given = [x[:20], x[20:40], "one/pictures", "two/pictures", Path("two/pictures").resolve()]
    paths = [zoo.open_run("digits", data=data).path for data in given]
    assert [path.name.rsplit("-", 1)[0] for path in paths] == ["on-arrays"] * 2 + [
        "on-pictures"
    ] * 3
    assert len(set(paths)) == 4
    assert paths[3] == paths[4]


def test_references_of_one_data_set_score_nothing_on_another(run):
    turned = zoo.open_run("digits", data="rotated-digits")
    (run.path / REFERENCE).touch()
    assert run.folder.reference_path.exists()
    assert not turned.folder.reference_path.exists()


def test_a_guide_for_its_model_comes_from_the_run(run):
    turned = zoo.open_run("digits", data="rotated-digits")
    recipe = zoo.recipe("vae-digits", model_from=turned, guide="flow", limit_train=60)
    assert recipe.train("flow", steps=2, **QUIET).config["model_from"]["run"] == str(
        Path("digits").resolve()
    )


def test_an_export_has_the_figures_of_the_training_data(run):
    turned = zoo.open_run("digits", data="rotated-digits")
    turned.evaluate(**LIMITS)
    assert zoo.open_run(turned.export("export")).metrics == run.metrics
    assert main(["export", "digits", "--data", "rotated-digits"]) == 0
    assert Path("digits-export").is_dir()


def test_what_was_found_before_a_training_goes_on_is_put_aside(run):
    zoo.open_run("digits", data="rotated-digits").evaluate(**LIMITS)
    recipe = zoo.recipe("vae-digits", networks="dense", limit_train=60, validation=20)
    recipe.train("digits", steps=4, resume=True, **QUIET)
    assert Path("digits/at-step-2/on-rotated-digits/metrics.json").exists()
    assert zoo.open_run("digits", data="rotated-digits").metrics == {}


def test_smaller_data_have_fewer_points_to_set_apart():
    assert zoo.recipe("vae-mnist", data="digits").story.validation == 180
    assert zoo.recipe("vae-mnist", data="digits", validation=20).story.validation == 20
    recipe = zoo.recipe("vae-mnist", model_from="vae-mnist", guide="flow", data="digits")
    assert len(recipe.splits.validation) == 180


def test_what_to_measure_two_data_sets_on_is_said(run):
    other = zoo.recipe("vae-digits", data="rotated-digits", networks="dense", limit_train=60)
    with pytest.raises(UserError, match="measure both on one of them, which --data names"):
        run.compare(other.train("other", steps=2, **QUIET))


def test_arrays_that_a_run_was_trained_on_are_its_own(place):
    x = torch.rand(60, 28, 28)
    recipe = zoo.recipe("vae-digits", data=x, networks="dense", batch_size=20)
    run = recipe.train("mine", steps=2, **QUIET)
    assert zoo.open_run("mine", data=x).path == run.path
