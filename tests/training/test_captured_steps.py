"""A captured step is the step, its update included: for every story, and for optimisers."""

import pytest
import torch
from torch import nn

from pyro_latents import captured, zoo
from pyro_latents.training import steps as training_steps
from pyro_latents.training.fit import check_hardware
from pyro_latents.training.loop import Loop
from pyro_latents.training.muon import Muon, matrices, polar
from pyro_latents.training.options import FitOptions

DENSE = {"networks": "dense", "hidden_dims": (16,)}
MUON = {"optimizer": "muon", "schedule": "fall"}
COUNT = 9


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(training_steps, "CAPTURED_FROM", 4)


def losses(folder, name, eager, settings, **options):
    """The losses of some steps of a training, the loop, and why steps were not captured."""
    folder.mkdir()
    recipe = zoo.recipe(name, limit_train=200, **settings)
    given = FitOptions(steps=COUNT, accelerator="cpu", progress=False, eager=eager, **options)
    fabric = check_hardware(recipe, given, folder)
    fabric.launch()
    loop = Loop(fabric, recipe, folder, gradient_clip=recipe.story.gradient_clip, eager=eager)
    found, take = [], loop.step

    def noted(batch):
        found.append(take(batch).item())
        return torch.tensor(found[-1])

    loop.step = noted
    loop.run(given)
    return found, loop


CASES = {
    "vae": ("vae-digits", DENSE),
    "clipped": ("vae-digits", {**DENSE, "gradient_clip": 0.1}),
    "muon": ("vae-digits", {**DENSE, **MUON}),
    "flow": ("vae-digits", {**DENSE, "guide": "flow"}),
    "low rank": ("vae-digits", {**DENSE, "guide": "low-rank"}),
    "vamp": ("vamp-vae-circles", {"batch_size": 20}),
    "triplet": ("triplet-tvae-digits", {}),
    "pose": ("pose-tvae-digits", {}),
    "equivae": ("equivae-digits", {}),
    "semi": ("equivae-semi-digits", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_gives_the_losses_of_the_programs(tmp_path, case):
    name, settings = CASES[case]
    eager, _ = losses(tmp_path / "eager", name, True, settings)
    found, loop = losses(tmp_path / "captured", name, False, settings)
    assert loop.steps.reasons == {}
    assert loop.objective._captured
    assert found == pytest.approx(eager, rel=1e-6)


@pytest.mark.parametrize("case", ["vae", "muon", "triplet"])
def test_a_number_format_is_that_of_the_programs(tmp_path, case):
    name, settings = CASES[case]
    eager, _ = losses(tmp_path / "a", name, True, settings, precision="bf16-mixed")
    found, loop = losses(tmp_path / "b", name, False, settings, precision="bf16-mixed")
    assert loop.steps.reasons == {}
    # Gradients of parameters that are used more than once add unrounded in a graph.
    assert found == pytest.approx(eager, rel=3e-3)


def test_what_cannot_be_captured_says_why(tmp_path, capsys):
    recipe = zoo.recipe("vae-digits", **DENSE)
    forward = type(recipe.guide).forward

    class Looking(type(recipe.guide)):
        def forward(self, x):
            assert x.mean() > -1
            return forward(self, x)

    recipe.guide.__class__ = Looking
    recipe.train(tmp_path / "run", steps=6, accelerator="cpu")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "captured" in line]
    assert line == "steps are not captured (all): the programs look at the value of a tensor"


def test_a_run_that_is_cut_while_captured_is_resumed_exactly(tmp_path):
    def train(out, steps, **options):
        recipe = zoo.recipe("vae-digits", **DENSE, limit_train=200)
        run = recipe.train(out, steps=steps, progress=False, accelerator="cpu", **options)
        return run.folder.read_parameters()

    whole = train(tmp_path / "whole", 12)
    train(tmp_path / "parts", 7)
    assert_same(train(tmp_path / "parts", 12, resume=True), whole)


def assert_same(mine, theirs):
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 2, 3)])
def test_muon_steps_by_the_polar_factor(shape):
    weight = nn.Parameter(torch.randn(shape))
    before, weight.grad = weight.detach().clone(), torch.randn(shape)
    Muon([weight], lr=0.1).step()
    moved = (before - weight.detach()).flatten(1) / 0.1
    u, s, v = torch.linalg.svd(1.95 * weight.grad.flatten(1), full_matrices=False)
    # Newton-Schulz of each singular value, by itself.
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    rows, columns = weight.flatten(1).shape
    expected = max(1, rows / columns) ** 0.5 * (u * s) @ v
    torch.testing.assert_close(moved, expected)


@pytest.mark.usefixtures("float64")
def test_the_polar_factor_has_singular_values_near_one():
    found = torch.linalg.svdvals(polar(torch.randn(7, 40)))
    assert found.min() > 0.65
    assert found.max() < 1.25


def test_muon_takes_the_matrices_of_layers_that_are_small():
    small, large = nn.Linear(20, 300), nn.Linear(300, 300)
    conv = nn.Conv2d(1, 4, 3)
    kept = list(matrices(nn.Sequential(small, large, conv, small), nn.Embedding(5, 5)))
    assert [id(p) for p in kept] == [id(small.weight), id(conv.weight)]


def test_an_optimiser_makes_it_a_whole_step():
    recipe = zoo.recipe("vae-digits", **DENSE)
    (batch,) = recipe.first_batch(size=20)
    parameters = list(nn.ModuleList([recipe.model, recipe.guide]).parameters())
    optimizer = torch.optim.Adam(parameters, lr=torch.tensor(1e-3), fused=True)
    step = captured(recipe.loss, recipe.model, recipe.guide, optimizer)
    found = [step(batch).item() for _ in range(30)]
    assert step.reason is None
    assert not step(batch).requires_grad
    assert found[-1] < found[0]
