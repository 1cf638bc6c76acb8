"""What any story should pass, and one closed form of this one's own."""

import math

import pytest
import torch
from laplace_vae import DIGITS, SCALE
from pyro import poutine

from pyro_latents import zoo

NAME = "laplace-vae-digits"
SMALL = {"limit_train": 200, "validation": 20, "batch_size": 50, "z_dim": 3}


@pytest.mark.parametrize("guide", DIGITS.guides)
def test_every_guide_fits_the_model_and_is_trained(guide, tmp_path):
    recipe = zoo.recipe(NAME, guide=guide, **SMALL)
    run = recipe.train(tmp_path / "run", epochs=4, progress=False, accelerator="cpu")
    losses = [float(row["loss"]) for row in run.folder.read_history()]
    assert losses[-1] < losses[0]


def test_draws_are_encoded_and_reconstructed(tmp_path):
    recipe = zoo.recipe(NAME, **SMALL)
    run = recipe.train(tmp_path / "run", steps=2, progress=False, accelerator="cpu")
    x = run.sample(4)
    assert run.encode(x)["z"].shape == (4, 3)
    assert run.reconstruct(x).shape == x.shape


def test_the_prior_is_that_of_the_formula():
    model = zoo.recipe(NAME, **SMALL).model
    trace = poutine.trace(model).get_trace(size=20_000)
    z = trace.nodes["z"]["value"]
    assert torch.allclose(z.var(0), torch.ones(3), atol=0.1)
    log_prob = trace.nodes["z"]["fn"].log_prob(torch.zeros(3))
    assert torch.allclose(log_prob, torch.tensor(-3 * math.log(2 * SCALE)))
