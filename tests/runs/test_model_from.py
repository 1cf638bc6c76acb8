"""A new guide for the model of a run, which stays as it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pyro.nn import PyroModule

from pyro_latents import zoo
from pyro_latents.cli import main
from pyro_latents.errors import UserError
from pyro_latents.runs.trained_model import TrainedModel

FEW = {"limit_train": 60, "validation": 20, "batch_size": 20}
QUIET = {"progress": False, "accelerator": "cpu"}
# Settings, a guide with parameters of its own, and its options.
STORIES = {
    "vae-digits": ({"networks": "dense", "z_dim": 3}, "full-rank", {}),
    "triplet-tvae-digits": ({"z_dim": 3}, "paper", {}),
    "pose-tvae-digits": ({"z_dim": 3, "hidden_dim": 16}, "flow", {}),
    "equivae-digits": ({"width": 2, "m_max": 2}, "full-rank", {}),
    "equivae-semi-digits": ({"width": 2, "m_max": 2, "labels": 20}, "paper", {"warm_up": 0.0}),
    "vaells-swiss-roll": ({"candidates": 0}, "amortised", {}),
}


def trained(name, out, **options):
    steps = options.pop("steps", 3)
    return zoo.recipe(name, **FEW, **options).train(out, steps=steps, **QUIET)


def parameters(run):
    return TrainedModel.of(run.folder).parameters


@pytest.mark.parametrize("name", STORIES)
def test_the_model_stays_as_it_is_and_the_guide_does_not(name, tmp_path):
    settings, guide, options = STORIES[name]
    first = trained(name, tmp_path / "first", **settings)
    recipe = zoo.recipe(name, model_from=first, guide=guide, seed=5, limit_train=50, **options)
    recipe.model.train()  # whoever has it may do so
    assert not any(parameter.requires_grad for parameter in recipe.model.parameters())
    before = {key: value.clone() for key, value in recipe.guide.state_dict().items()}
    # Six steps are more than an epoch, and end with a validation.
    run = recipe.train(tmp_path / "second", steps=6, **QUIET)

    kept, now = parameters(first), parameters(run)
    assert kept.keys() == now.keys()
    assert all(torch.equal(kept[key], now[key]) for key in kept)
    held = {id(parameter) for parameter in recipe.model.parameters()}
    own = [key for key, value in recipe.guide.named_parameters() if id(value) not in held]
    after = recipe.guide.state_dict()
    assert own
    assert any(not torch.equal(before[key], after[key]) for key in own)

    # The run is complete in itself: the other may go.
    first.path.rename(tmp_path / "elsewhere")
    found = zoo.open_run(run.path).measure(particles=2, likelihood_points=4, limit_test=8)
    assert found["elbo"] == found["elbo"]
    opened = zoo.open_run(run.path).recipe.model.state_dict()
    assert all(torch.equal(kept[key], opened[key].cpu()) for key in kept)


def test_a_model_with_dropout_does_not_drop_out(tmp_path):
    first = trained("equivae-digits", tmp_path / "first", width=2, m_max=2, dropout=0.5)
    recipe = zoo.recipe("equivae-digits", model_from=first, guide="full-rank", limit_train=60)
    modes = []
    recipe.model.invariant.network.register_forward_hook(
        lambda module, given, made: modes.append(module.training)
    )
    recipe.train(tmp_path / "second", epochs=2, **QUIET)
    assert len(modes) > 4
    assert not any(modes)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return trained("vae-digits", folder / "first", networks="dense", z_dim=3, epochs=7)


def test_numbers_are_those_of_the_run_unless_given(first):
    recipe = zoo.recipe("vae-digits", model_from=str(first.path), guide="flow", batch_size=10)
    assert recipe.story.z_dim == 3
    assert recipe.story.epochs == 7
    assert recipe.story.batch_size == 10


def test_where_the_model_came_from_is_kept(first, tmp_path):
    run = zoo.recipe("vae-digits", model_from=first, guide="flow").train(
        tmp_path / "run", steps=1, **QUIET
    )
    model = TrainedModel.of(first.folder)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["model_from"] == {"run": str(first.path.resolve()), "hash": model.hash}
    assert model.is_that_of(TrainedModel.of(run.folder), lambda: run.parts.splits)


def test_a_model_is_its_numbers_too(first, tmp_path):
    other = trained("vae-digits", tmp_path / "a", networks="dense", z_dim=3, epochs=7, steps=4)
    one, two = TrainedModel.of(first.folder), TrainedModel.of(other.folder)
    assert not one.is_that_of(two, lambda: first.parts.splits)
    # The width of a normal likelihood is in no parameter.
    normal = {"networks": "dense", "z_dim": 2, "likelihood": "normal"}
    narrow = trained("vae-digits", tmp_path / "b", scale=0.1, **normal)
    wide = zoo.recipe("vae-digits", model_from=narrow, guide="flow").train(
        tmp_path / "c", steps=1, **QUIET
    )
    text = wide.folder.config_path.read_text()
    one, two = TrainedModel.of(narrow.folder), TrainedModel.of(wide.folder)
    assert one.is_that_of(two, lambda: first.parts.splits)
    wide.folder.config_path.write_text(text.replace("scale: 0.1", "scale: 0.2"))
    assert not one.is_that_of(TrainedModel.of(wide.folder), lambda: first.parts.splits)


def test_it_is_resumed_exactly(first, tmp_path):
    def recipe():
        return zoo.recipe("vae-digits", model_from=first, guide="full-rank", limit_train=60)

    whole = recipe().train(tmp_path / "whole", steps=6, **QUIET)
    recipe().train(tmp_path / "parts", steps=3, **QUIET)
    parts = recipe().train(tmp_path / "parts", steps=6, resume=True, **QUIET)
    one, other = whole.folder.read_parameters(), parts.folder.read_parameters()
    assert all(torch.equal(one[key], other[key]) for key in one)
    alone = zoo.recipe("vae-digits", guide="full-rank", limit_train=60, networks="dense", z_dim=3)
    with pytest.raises(UserError, match="was trained with another --model-from"):
        alone.train(tmp_path / "parts", steps=9, resume=True, **QUIET)


class Sharing(PyroModule):
    """A guide with nothing of its own."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, *, size=1):
        import pyro

        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.model.prior())


REFUSED = {
    "another number of the model": (
        lambda run: zoo.recipe("vae-digits", model_from=run, z_dim=4).model,
        "has z_dim 3, not 4: leave --z-dim out",
    ),
    "another story": (
        lambda run: zoo.recipe("pose-tvae-digits", model_from=run),
        "has a model of vae, and pose-tvae-digits is of pose-tvae",
    ),
    "other data": (
        lambda run: zoo.recipe("vae-mnist", model_from=run),
        "has a model of digits, and vae-mnist is of mnist: train vae-digits, .* --data mnist",
    ),
    "a guide without parameters": (
        lambda run: zoo.recipe("vae-digits", model_from=run, guide=Sharing).train("r", steps=1),
        "Sharing has no parameters but the model's, and nothing is left to train",
    ),
    "rounded numbers": (
        lambda run: zoo.recipe("vae-digits", model_from=run, guide="flow").train(
            "r", steps=1, precision="bf16-true"
        ),
        "would round the model, which is to stay as it is: give bf16-mixed",
    ),
    "no run": (lambda run: zoo.recipe("vae-digits", model_from="nowhere"), "is not there"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(what, first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    act, message = REFUSED[what]
    with pytest.raises(UserError, match=message) as raised:
        act(first)
    assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", ["vamp-vae-swiss-roll", "vaells-swiss-roll"])
def test_a_guide_that_is_all_of_its_model_is_told_so(recipe, tmp_path):
    options = {"candidates": 0} if "vaells" in recipe else {"pseudo_inputs": 4}
    run = trained(recipe, tmp_path / "first", **options)
    with pytest.raises(UserError, match="the guide paper has no parameters but the model's"):
        zoo.recipe(recipe, model_from=run).train(tmp_path / "second", steps=1, **QUIET)


def test_the_command_line(first, tmp_path, capsys):
    options = ["--guide", "flow", "--steps", "2", "--out", str(tmp_path / "run")]
    assert main(["train", "vae-digits", "--model-from", str(first.path), *options]) == 0
    run = zoo.open_run(tmp_path / "run")
    assert run.story.z_dim == 3
    kept = parameters(first)
    assert all(torch.equal(value, parameters(run)[key]) for key, value in kept.items())
    assert main(["train", "vae-digits", "--model-from", str(first.path), "--z-dim", "4"]) == 2
    assert "leave --z-dim out" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [str, Path], ids=["word", "path"])
def test_a_guide_learns_from_other_data_of_one_s_own(kind, tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((80, 6, 5)))
    numbers = {"networks": "dense", "z_dim": 2, "data": str(tmp_path / "a.npy")}
    first = trained("vae-digits", tmp_path / "first", **numbers)
    other = kind(tmp_path / "b.npy")
    recipe = zoo.recipe("vae-digits", model_from=first, guide="full-rank", data=other)
    assert recipe.story.data == str(other)
    run = recipe.train(tmp_path / "second", steps=2, **QUIET)
    torch.testing.assert_close(parameters(run), parameters(first), rtol=0, atol=0)
    larger = np.random.default_rng(0).random((80, 7, 5))
    recipe = zoo.recipe("vae-digits", model_from=first, data=larger)
    with pytest.raises(UserError, match="is of grey images of 6 x 5, and the data are .* 7 x 5: "):
        recipe.check_guide()


@pytest.mark.parametrize("data", ["rotated-digits", "mine"])
def test_a_guide_learns_from_other_data_than_named_ones(data, first, tmp_path):
    given = np.random.default_rng(0).random((80, 28, 28)) if data == "mine" else data
    recipe = zoo.recipe("vae-digits", model_from=first, guide="full-rank", data=given)
    run = recipe.train(tmp_path / "second", steps=2, **QUIET)
    kept = parameters(first)
    assert all(torch.equal(value, parameters(run)[key]) for key, value in kept.items())
    # Both on the data of the second guide; the first was trained on others.
    here, there = zoo.open_run(first.path, data=given), zoo.open_run(run.path, data=given)
    assert "The runs have one model" in here.compare(there, particles=2, points=2).as_text()
    with pytest.raises(UserError, match="are of different data, digits and"):
        first.compare(there, particles=2, points=2)
