"""The residual of turning before the model and after it, where it is known."""

import math

import pyro
import pytest
import torch
from pyro.distributions import Categorical, Normal

from pyro_latents.checks.equivariance import central_reconstructions, equivariance_residual
from pyro_latents.data.affine import rotate


def identity_model(x):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", Normal(torch.zeros(x.shape), 1.0).to_event(3))
        pyro.sample("x", Normal(z, 1.0).to_event(3), obs=x)


def identity_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", Normal(x, 1.0).to_event(3))


def blind_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", Normal(torch.eye(9).expand(x.shape), 1.0).to_event(3))


def test_a_model_that_keeps_images_turns_along_with_them():
    x = torch.rand(4, 1, 9, 9)
    found = equivariance_residual(identity_model, identity_guide)(x)
    torch.testing.assert_close(found, torch.zeros(4))


def test_a_model_that_ignores_images_does_not():
    x = torch.rand(4, 1, 9, 9)
    found = equivariance_residual(identity_model, blind_guide, degrees=30)(x)
    stroke = torch.eye(9)[None]
    change = stroke - rotate(stroke[None], torch.tensor([math.pi / 6]))[0]
    torch.testing.assert_close(found, change.abs().mean().expand(4))


def test_any_leading_dimensions():
    x = torch.rand(2, 3, 1, 9, 9)
    statistic = equivariance_residual(identity_model, blind_guide)
    assert statistic(x).shape == (2, 3)
    assert statistic.whole
    assert "20 degrees" in statistic.meaning


def test_a_discrete_site_is_at_its_mode():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", Categorical(torch.ones(3)))
            pyro.sample("x", Normal(y.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", Categorical(torch.tensor([0.1, 0.3, 0.6])))

    found = central_reconstructions(model, guide, torch.zeros(5))
    torch.testing.assert_close(found, torch.full((5,), 2.0))


def test_a_site_of_the_model_alone_is_at_its_mean():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Normal(3.0, 1.0))
            pyro.sample("x", Normal(z, 1.0), obs=x)

    found = central_reconstructions(model, lambda x: None, torch.zeros(5))
    torch.testing.assert_close(found, torch.full((5,), 3.0))


@pytest.mark.parametrize("name", ["triplet-tvae", "equivae", "pose-tvae", "vaells", "vae"])
def test_every_story_of_images_has_the_statistic(name):
    from pyro_latents import zoo

    options = {"num_anchors": 2} if name == "vaells" else {}
    recipe = zoo.recipe(f"{name}-digits", limit_train=200, validation=30, **options)
    statistic = equivariance_residual(*recipe.story.image_pair(recipe))
    x = recipe.splits.test.x[:3]
    found = statistic(x)
    assert found.shape == (3,)
    assert (found > 0).all()
    torch.testing.assert_close(found, statistic(x))
