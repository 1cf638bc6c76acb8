"""An angle that turns along with its image, and the pose that is inferred with it."""

import math

import pytest
import torch

from pyro_latents import zoo
from pyro_latents.data.affine import rotate
from pyro_latents.errors import UserError
from pyro_latents.guides.pose_polar import PolarDTVAE, PolarLocaliser
from pyro_latents.programs import local_parameters
from pyro_latents.stories.pose_tvae.recipes import PoseDTVAEStory

SMALL = {"z_dim": 3, "hidden_dim": 16, "warp": "affine5", "localiser": "polar"}


def smooth(count: int = 6) -> torch.Tensor:
    """Images of a few smooth blobs, which lose little when they are turned."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.9 * torch.rand(count, 4, 1, 1, 2, generator=generator) - 0.45
    side = torch.linspace(-1, 1, 28)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
    return (-(grid - centres).square().sum(-1) / 0.05).exp().sum(1, keepdim=True).clamp_max(1)


def between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The angle from b to a, within half a turn."""
    return torch.remainder(a - b + math.pi, 2 * math.pi) - math.pi


@pytest.mark.parametrize("degrees", [20, 90, 200])
def test_the_angle_turns_along_with_the_image(degrees):
    torch.manual_seed(0)
    localiser, x = PolarLocaliser((1, 28, 28)), smooth()
    turn = torch.full((len(x),), math.radians(degrees))
    followed = between(localiser(rotate(x, turn)), localiser(x))
    # `rotate` turns from the y axis, which points down, to the x axis.
    assert between(followed, -turn).abs().max() < 0.1


def test_the_upright_image_is_that_of_the_image_turned():
    torch.manual_seed(0)
    guide, x = zoo.recipe("pose-dtvae-digits", **SMALL).guide, smooth()
    assert isinstance(guide, PolarDTVAE)
    turned = rotate(x, torch.full((len(x),), 2.0))
    first, second = (guide.upright(y, guide.posterior(y)["u"].mean) for y in (x, turned))
    assert (first - second).square().mean() < 0.02 * (x - turned).square().mean()


def test_every_parameter_has_a_finite_gradient():
    recipe = zoo.recipe("pose-dtvae-digits", **SMALL)
    batch = recipe.first_batch(size=6)
    # An empty image has no direction.
    batch[0][0] = 0.0
    with local_parameters(recipe.model, recipe.guide):
        recipe.loss.differentiable_loss(recipe.model, recipe.guide, *batch).backward()
    for name, parameter in [*recipe.model.named_parameters(), *recipe.guide.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


OTHERS = [
    {"warp": "affine6"},
    {"warp": "affine5", "num_turns": 8},
    {"warp": "affine5", "pose_prior": "fitted"},
]


@pytest.mark.parametrize("options", OTHERS, ids=["warp", "turns", "prior"])
def test_it_is_for_an_angle_without_a_prior_and_without_a_search(options):
    with pytest.raises(UserError, match="--localiser polar infers the angle of a pose without"):
        PoseDTVAEStory(data="digits", localiser="polar", **options)
