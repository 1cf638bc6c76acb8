"""Weights that come with the package: every one loads, and comes to what its card says."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from pyro_latents import zoo
from pyro_latents.cli import main
from pyro_latents.data.digits import digits
from pyro_latents.data.sources import SOURCES
from pyro_latents.errors import UserError
from pyro_latents.runs import weights
from pyro_latents.runs.card import (
    MARKDOWN,
    PROBED,
    as_markdown,
    hash_of,
    probe,
    read_card,
    size_of,
)
from pyro_latents.runs.export import write_export
from pyro_latents.runs.folder import RunFolder
from pyro_latents.runs.trained_model import TrainedModel

NAMES = zoo.pretrained_names()
SMALL = "vaells-swiss-roll"
LIMITS = {"particles": 2, "likelihood_points": 2, "limit_test": 4}
# Of another processor or version of torch.
TOLERANCE = 1e-3


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A folder in the place of the package's weights, with copies of small ones."""
    folder = tmp_path / "packaged"
    monkeypatch.setattr(weights, "PACKAGED", folder)
    for version in (1, 2, 10):
        shutil.copytree(
            Path(zoo.__file__).parent / f"weights/{SMALL}-v1", folder / f"a-v{version}"
        )
    return folder


def found_again(name, data):
    """The probe of a card on some data, and what it is now."""
    folder = weights.PACKAGED / name
    (said,) = [probe for probe in read_card(folder).probes if probe.data == data]
    return said, probe(zoo.pretrained(name, data=data))


def without_files(name):
    """The data of the first probe of a card, which are embedded or simulated."""
    return read_card(weights.PACKAGED / name).probes[0].data


def test_there_are_weights_of_every_story():
    stories = {zoo.pretrained(name).story.name for name in NAMES}
    assert stories >= {"vae", "triplet-tvae", "vaells", "equivae", "pose-tvae", "pose-dtvae"}


def test_weights_take_less_than_thirty_megabytes_of_a_wheel(place):
    wheel = shutil.make_archive(str(place / "weights"), "zip", weights.PACKAGED)
    assert Path(wheel).stat().st_size < 30e6


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_to_what_their_card_says(name):
    data = without_files(name)
    assert data == "digits" or SOURCES[data].shape == (20,)
    said, now = found_again(name, data)
    assert said.points == now.points == PROBED
    assert now.mse == pytest.approx(said.mse, rel=TOLERANCE)
    assert now.log_q == pytest.approx(said.log_q, abs=10 * TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_real_images_come_to_what_their_card_says(name, mnist_dir):
    data = zoo.pretrained(name).story.data
    if data == without_files(name):
        pytest.skip("needs no files")
    if data == "fashion-mnist" and not (mnist_dir / "FashionMNIST" / "raw").is_dir():
        pytest.skip(f"{mnist_dir} has no Fashion-MNIST")
    said, now = found_again(name, data)
    assert now.mse == pytest.approx(said.mse, rel=TOLERANCE)
    assert now.log_q == pytest.approx(said.log_q, abs=10 * TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_of_its_weights(name):
    folder = weights.PACKAGED / name
    card = read_card(folder)
    assert card.name == name
    assert card.sha256 == hash_of(folder)
    assert (folder / MARKDOWN).read_text() == as_markdown(folder)
    config = RunFolder(folder).read_config()
    assert config["data_dir"] is None
    if "model_from" in config:
        trained = TrainedModel.of(zoo.pretrained(name).folder)
        assert trained.hash == config["model_from"]["hash"]


def test_weights_are_opened_in_less_than_two_seconds():
    largest = max(NAMES, key=lambda name: size_of(weights.PACKAGED / name))
    began = time.process_time()
    zoo.pretrained(largest).sample(1)
    assert time.process_time() - began < 2


def test_a_name_without_a_version_is_the_newest(packaged):
    assert zoo.pretrained_names() == ["a-v1", "a-v2", "a-v10"]
    assert zoo.pretrained("a").path == Path("runs/a-v10")
    assert zoo.pretrained("a-v2").path == Path("runs/a-v2")


def test_the_package_is_only_read(packaged, place):
    before = {path: path.stat().st_mtime_ns for path in packaged.rglob("*")}
    run = zoo.pretrained("a-v1")
    known = run.metrics
    assert not run.path.exists()
    found = run.evaluate(**LIMITS)
    assert found["test_points"] == 4
    assert found.keys() == known.keys()
    run.plot()
    assert run.report() == Path("runs/a-v1/report.html")
    assert not (run.path / "config.yaml").exists()
    assert before == {path: path.stat().st_mtime_ns for path in packaged.rglob("*")}
    # Results are found again under the name, and under the folder that they are in.
    assert zoo.pretrained("a-v1").metrics == found
    assert zoo.open_run(place / "runs" / "a-v1").metrics == found
    assert zoo.pretrained("a-v1", out="elsewhere").metrics == known
    assert zoo.open_run(run.export("whole")).metrics == found


def test_a_command_takes_a_name_in_the_place_of_a_folder(capsys, monkeypatch):
    limits = ["--particles", "2", "--likelihood-points", "2", "--limit-test", "4"]
    assert main(["evaluate", SMALL, *limits]) == 0
    assert f"runs/{SMALL}-v1/metrics.json" in capsys.readouterr().out
    # A folder goes before a name.
    Path(SMALL).mkdir()
    assert main(["evaluate", SMALL, *limits]) == 2
    assert f"{SMALL} is not a run" in capsys.readouterr().err


def test_guides_of_one_packaged_model_are_compared(capsys):
    names = [SMALL, f"{SMALL}-amortised-v1"]
    assert main(["compare", *names, "--particles", "2", "--points", "4"]) == 0
    assert "The runs have one model" in capsys.readouterr().out


def test_a_guide_is_trained_for_a_packaged_model():
    recipe = zoo.recipe(SMALL, model_from=SMALL, guide="amortised", limit_train=60)
    run = recipe.train(steps=2, progress=False, accelerator="cpu")
    base = TrainedModel.of(zoo.pretrained(SMALL).folder)
    assert TrainedModel.of(run.folder).hash == base.hash
    assert Path(run.config["model_from"]["run"]).name == f"{SMALL}-v1"


def test_weights_are_measured_on_pictures_of_ones_own(place):
    for i, image in enumerate(digits().test.x[:12]):
        Image.fromarray((255 * image[0]).byte().numpy()).save(place / f"{i}.png")
    run = zoo.pretrained("vae-mnist", data=place)
    assert run.measure(particles=2, likelihood_points=2, limit_test=2)["test_points"] == 2


def test_a_guide_alone_is_joined_with_the_model_that_it_was_trained_for(place, monkeypatch):
    packaged = place / "packaged"
    monkeypatch.setattr(weights, "PACKAGED", packaged)
    few = {"limit_train": 60, "validation": 20, "batch_size": 20}
    quiet = {"steps": 2, "progress": False, "accelerator": "cpu"}
    first = zoo.recipe("equivae-digits", **few, width=2, m_max=2).train("e", **quiet)
    write_export(first.folder, packaged / "e-v1", half=True)
    base = zoo.pretrained("e")
    recipe = zoo.recipe("equivae-digits", model_from=base, guide="full-rank", limit_train=60)
    second = recipe.train("f", **quiet)
    write_export(second.folder, packaged / "e-full-rank-v1", model=False)
    whole, joined = (
        run.folder.read_parameters() for run in (second, zoo.pretrained("e-full-rank"))
    )
    assert whole.keys() == joined.keys()
    assert all(torch.equal(whole[name], joined[name].to(whole[name].dtype)) for name in whole)
    # Networks that the guide has of the model are in neither twice.
    size = os.path.getsize(packaged / "e-full-rank-v1" / "model.safetensors")
    shared = sum(p.numel() for p in second.parts.model.parameters())
    assert size < 4 * sum(value.numel() for value in whole.values()) - 4 * shared


def test_what_is_wrong_with_a_name_is_said(capsys):
    with pytest.raises(UserError, match="no pretrained weights 'vae-minst': did you mean vae-mn"):
        zoo.pretrained("vae-minst")
    Path("runs").mkdir()
    shutil.copytree(weights.PACKAGED / f"{SMALL}-v1", f"runs/{SMALL}-v1")
    with pytest.raises(UserError, match=f"runs/{SMALL}-v1 holds a run already: .* another out"):
        zoo.pretrained(SMALL)


def test_weights_and_cards_are_shown(capsys):
    assert main(["pretrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert main(["pretrained", SMALL]) == 0
    card = zoo.pretrained_card(SMALL)
    assert card == (weights.PACKAGED / f"{SMALL}-v1" / MARKDOWN).read_text()
    assert capsys.readouterr().out == card
    assert main(["pretrained", "vae-minst"]) == 2
    assert "did you mean vae-mn" in capsys.readouterr().err
