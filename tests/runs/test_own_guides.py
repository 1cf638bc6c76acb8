"""Guides of one's own in the house: an object, a factory, an import path."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyro
import pytest
import torch
from pyro.distributions import Normal
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

from pyro_latents import zoo
from pyro_latents.checks import classifier
from pyro_latents.cli import main
from pyro_latents.errors import UserError
from pyro_latents.runs.checking import check

PACKAGE = '''
"""A guide of someone's."""

import pyro
import torch
from pyro.distributions import Normal
from pyro.nn import PyroModule
from torch import nn


class Small(PyroModule):
    def __init__(self, model, *, width=16):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(-3), nn.Linear(784, width), nn.Tanh(), nn.Linear(width, 2 * model.z_dim)
        )

    def forward(self, x, *, size=1):
        with pyro.plate("data", len(x), dim=-1):
            loc, log_scale = self.network(x).chunk(2, -1)
            pyro.sample("z", Normal(loc, log_scale.exp()).to_event(1))
'''
PROGRAM = """
import json, sys
from pyro_latents.checks import classifier
from pyro_latents.cli import main

classifier.STEPS = 5

for command in json.loads(sys.argv[1]):
    if main(command):
        sys.exit(f"failed: {command}")
"""
FEW = {"networks": "dense", "z_dim": 3, "limit_train": 100, "validation": 20}
QUIET = {"progress": False, "accelerator": "cpu"}


def test_every_command_works_on_the_run_of_a_guide_in_a_package_of_its_own(tmp_path):
    (tmp_path / "package" / "someones").mkdir(parents=True)
    (tmp_path / "package" / "someones" / "__init__.py").touch()
    (tmp_path / "package" / "someones" / "guides.py").write_text(PACKAGE)
    own, paper = str(tmp_path / "own"), str(tmp_path / "paper")
    short = ["--steps", "3", "--limit-train", "100"]
    few = ["--particles", "3"]
    commands = [
        ["train", "vae-digits", *short, "--networks", "dense", "--out", paper],
        ["train", "vae-digits", *short, "--model-from", paper, "--out", own]
        + ["--guide", "someones.guides:Small"],
        ["evaluate", own, *few, "--limit-test", "20"],
        ["compare", own, paper, *few, "--points", "10", "--out", str(tmp_path / "compared")],
        ["check", own, "--images", "12", "--draws", "5"],
        ["calibrate", own, "--points", "12", "--draws", "5"],
        ["plot", own],
        ["report", own],
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "package"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "guide: someones.guides:Small" in (Path(own) / "config.yaml").read_text()
    metrics = json.loads((Path(own) / "metrics.json").read_text())
    assert {"elbo", "log_likelihood", "calibration_p_z"} <= metrics.keys()
    assert "someones.guides:Small" in (Path(own) / "report.html").read_text()
    # Here there is no such package.
    with pytest.raises(UserError, match="someones.guides:Small cannot be imported"):
        zoo.open_run(own).parts  # noqa: B018


class Small(PyroModule):
    """A guide with an encoder, of the sites that it is told."""

    def __init__(self, *sites):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(-3), nn.Linear(784, 8), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(8, 2 * size) for name, size in sites})

    def forward(self, x, *others, size=1):
        with pyro.plate("data", len(x), dim=-1):
            for name, head in self.heads.items():
                loc, log_scale = head(self.network(x)).chunk(2, -1)
                pyro.sample(name, Normal(loc, 0.3 * log_scale.exp()).to_event(1))


def of_model(model):
    return Small(("z", model.z_dim))


def test_an_object_is_trained_and_given_again(tmp_path):
    run = zoo.recipe("vae-digits", guide=Small(("z", 3)), **FEW).train(
        tmp_path / "run", steps=2, **QUIET
    )
    with pytest.raises(UserError, match="has no import path, Small .object.: open") as told:
        zoo.open_run(run.path).evaluate()
    assert "\n" not in str(told.value)
    again = Small(("z", 3))
    opened = zoo.open_run(run.path, guide=again)
    assert opened.evaluate(particles=2, limit_test=10)["elbo"] < 0
    kept = run.folder.read_parameters()
    assert all(
        torch.equal(kept[f"guide.{key}"], value.cpu()) for key, value in again.state_dict().items()
    )
    other = zoo.open_run(run.path, guide=Small(("z", 3), ("u", 2)))
    with pytest.raises(UserError, match="does not fit the recipe vae-digits with the guide"):
        other.evaluate()


@pytest.mark.parametrize("given", [of_model, f"{__name__}:of_model"], ids=["factory", "path"])
def test_a_factory_that_can_be_imported_is_found_again(given, tmp_path):
    if __name__ not in sys.modules:
        pytest.skip("the tests are no module here")
    recipe = zoo.recipe("vae-digits", guide=given, **FEW)
    run = recipe.train(tmp_path / "run", steps=2, **QUIET)
    assert run.config["guide"] == f"{__name__}:of_model"
    assert zoo.open_run(run.path).evaluate(particles=2, limit_test=10)["elbo"] < 0


def test_a_factory_has_the_seed_of_the_recipe():
    one, same, other = (
        zoo.recipe("vae-digits", guide=of_model, seed=seed, **FEW).guide.heads["z"].weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_one_without_a_name_is_given_again(tmp_path):
    factory = partial(of_model)
    run = zoo.recipe("vae-digits", guide=factory, **FEW).train(tmp_path / "r", steps=1, **QUIET)
    assert run.config["guide"] == "partial (object)"
    assert zoo.open_run(run.path, guide=factory).parts.guide.heads.keys() == {"z"}


def with_global_parameter(x, *, size=1):
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", Normal(loc, 1.0).to_event(1))


REFUSED = {
    "a class that takes no model": (
        type("Bare", (), {"__init__": lambda self: None}),
        "Bare cannot be called with the model alone",
    ),
    "one that fails": (lambda model: model.nothing, "fails at the model: AttributeError"),
    "one that makes nothing": (lambda model: None, "makes no guide of the model, but None"),
    "a parameter in Pyro's store": (
        with_global_parameter,
        "the guide's parameter 'loc' is in Pyro's global store, and would not be trained",
    ),
    "an automatic guide": (AutoNormal, "AutoNormal has parameters of each data point"),
    "a path to nothing": ("json:Nothing", "json has no Nothing: a guide's path is"),
    "a path to a number": ("json.decoder:NaN", "json.decoder:NaN is no guide"),
    "half a path": ("json:", "'json:' is no import path"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_guide_is_refused_in_one_line(what, tmp_path):
    given, message = REFUSED[what]
    with pytest.raises(UserError, match=message) as raised:
        zoo.recipe("vae-digits", guide=given, **FEW).train(tmp_path / "run", steps=1, **QUIET)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_an_object_by_its_path_is_refused(tmp_path, monkeypatch):
    (tmp_path / "objects_of_mine.py").write_text("from torch import nn\nGUIDE = nn.Linear(2, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="objects_of_mine:GUIDE is an object, whose parameters"):
        zoo.recipe("vae-digits", guide="objects_of_mine:GUIDE", **FEW)


def test_one_may_lie_in_the_folder_that_one_is_in(tmp_path, monkeypatch, capsys):
    (tmp_path / "guides_of_mine.py").write_text(PACKAGE)
    monkeypatch.chdir(tmp_path)
    command = ["train", "vae-digits", "--networks", "dense", "--guide", "guides_of_mine:Small"]
    assert main([*command, "--steps", "1", "--limit-train", "100", "--out", "run"]) == 0
    assert main(["evaluate", "run", "--particles", "2", "--limit-test", "10"]) == 0


# The sites of each story, and what it is trained with.
STORIES = {
    "pose-tvae-digits": ([("z", 3), ("u", 6)], {"z_dim": 3, "pose_prior": "identity"}),
    "triplet-tvae-digits": ([(f"z{i}", 3) for i in ("", 0, 1, 2)] + [("T", 3)], {"z_dim": 3}),
    "equivae-digits": ([("v", 4)], {"width": 2, "m_max": 2, "v_dim": 4}),
}


@pytest.mark.parametrize("name", STORIES)
def test_every_story_takes_a_guide_that_is_a_program_alone(name, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 5)
    sites, options = STORIES[name]
    guide = Small(*sites)
    recipe = zoo.recipe(name, guide=guide, limit_train=60, validation=20, batch_size=20, **options)
    path = recipe.train(tmp_path / "run", steps=2, **QUIET).path
    run = zoo.open_run(path, guide=guide)
    found = run.evaluate(particles=10, likelihood_points=4, limit_test=8)
    assert {"elbo", "log_likelihood"} <= found.keys()
    assert all(value == value for value in found.values())
    if name.startswith("triplet"):
        # The one whose check infers with the guide by itself.
        assert check(run, images=2, draws=2)
    assert run.calibrate(points=6, draws=4)[0].keys() <= {site for site, _ in sites}
    assert run.plot()
