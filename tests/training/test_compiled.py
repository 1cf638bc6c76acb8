"""Compiled networks: the same training, the same checkpoints."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.training import compiled as compiled_module
from pyro_latents.training.compiled import compile_networks


@pytest.fixture
def any_machine(monkeypatch):
    """Pass for a machine with a C++ compiler: what does not generate code needs none."""
    monkeypatch.setattr(compiled_module, "_compiler", lambda: "c++")


# PyTorch's own notice, of the tensors that it traces.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("any_machine")
def test_training_is_that_of_the_plain_networks(tmp_path, monkeypatch):
    # All of tracing, but none of the minute that generating code takes.
    traced = partialmethod(nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(nn.Module, "compile", traced)
    options = {"steps": 3, "progress": False, "accelerator": "cpu"}
    settings = {"networks": "dense", "validation": 0}
    runs = [
        zoo.recipe("vae-digits", **settings).train(tmp_path / str(c), compile=c, **options)
        for c in (False, True)
    ]
    plain, compiled = (run.recipe for run in runs)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    for mine, theirs in zip(compiled.guide.parameters(), plain.guide.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert runs[1].config["training"]["compile"]


@pytest.mark.usefixtures("any_machine")
def test_only_the_large_networks_are_compiled(monkeypatch):
    done = []
    monkeypatch.setattr(nn.Module, "compile", lambda network: done.append(network))
    recipe = zoo.recipe("vae-digits")
    compile_networks(recipe.model, recipe.guide, lambda x: x)
    assert done == [recipe.model.decoder, recipe.guide.encoder]


@pytest.mark.usefixtures("any_machine")
def test_a_set_encoder_keeps_what_it_holds_out_of_the_compiled_network(monkeypatch):
    done = []
    monkeypatch.setattr(nn.Module, "compile", lambda network: done.append(network))
    recipe = zoo.recipe("equivae-digits")
    compile_networks(recipe.model, recipe.guide)
    model, guide = recipe.model, recipe.guide
    assert done == [model.decoder, model.invariant.network, guide.encoder]


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        compile_networks(nn.Linear(1, 1))
