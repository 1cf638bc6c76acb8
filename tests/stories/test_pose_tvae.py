import pytest
import torch

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.stories.pose_tvae.recipes import (
    LOCALISER_DIM,
    RECIPES,
    PoseDTVAEStory,
    PoseTVAEStory,
)


def test_each_story_has_its_three_recipes():
    assert sorted(RECIPES) == [
        f"pose-{kind}-{data}"
        for kind in ("dtvae", "tvae")
        for data in ("digits", "mnist", "rotated-mnist")
    ]


def test_the_defaults_are_the_thesis():
    settings = RECIPES["pose-dtvae-mnist"]
    assert (settings.epochs, settings.hidden_dim, LOCALISER_DIM) == (50, 256, 128)
    assert settings.validation == 0
    assert PoseTVAEStory(data="mnist", warp="tps").build_warp().num_parameters == 18
    assert settings.num_turns == 1
    assert {story.build_warp().border for story in RECIPES.values()} == {"replicate"}


def test_the_border_and_the_start_are_options():
    story = PoseTVAEStory(data="digits", border="zeros", start="random")
    assert story.build_warp().border == "zeros"
    model = story.build_model(lambda: None)
    u = story.build_guide("paper", model).posterior(torch.rand(3, 1, 28, 28))["u"].mean
    assert u.abs().min() > 0


def test_the_optimiser_of_the_thesis_trains(tmp_path):
    recipe = zoo.recipe("pose-tvae-digits", adadelta=True, hidden_dim=16, limit_train=100)
    (optimizer,) = recipe.plan.build_optimizers().values()
    assert isinstance(optimizer, torch.optim.Adadelta)
    assert optimizer.defaults["rho"] == 0.95
    before = [p.clone() for p in recipe.model.parameters()]
    recipe.train(tmp_path / "run", steps=2, progress=False)
    for old, new in zip(before, recipe.model.parameters(), strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize(
    ("prior", "rank", "warp", "u_dim"),
    [
        ("none", 0, "tps", 18),
        ("fitted", 0, "affine5", 5),
        ("affine5", 0, "affine6", 5),
        ("full", 3, "tps", 3),
    ],
)
def test_the_prior_sets_the_size_of_the_pose(prior, rank, warp, u_dim):
    settings = PoseTVAEStory(data="digits", pose_prior=prior, pose_rank=rank, warp=warp)
    assert settings.build_model(lambda: None).u_dim == u_dim


ERRORS = {
    "prior": (dict(pose_prior="gamma"), "gamma.*none, identity, fitted, affine5, full"),
    "warp": (dict(warp="affine7"), "affine7.*affine6"),
    "rank": (dict(pose_prior="full", pose_rank=7), "--pose-rank from 1 to 6.*affine6; got 7"),
    "no rank": (dict(pose_prior="full"), "--pose-rank from 1 to 6.*got 0"),
    "rank alone": (dict(pose_rank=3), "add --pose-prior full"),
    "spline": (dict(pose_prior="affine5", warp="tps"), "add --warp affine5"),
    "turns": (dict(num_turns=8), "add --num-turns 1, or --warp affine5 --pose-prior none"),
    "no turn": (dict(num_turns=0), "--num-turns must be positive; got 0"),
    "code": (dict(z_dim=0), "--z-dim must be positive; got 0"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(options, message):
    with pytest.raises(UserError, match=message):
        PoseDTVAEStory(data="digits", **options)


@pytest.mark.parametrize("kind", ["tvae", "dtvae"])
def test_a_run_is_trained_and_measured(kind, tmp_path):
    from pyro_latents import zoo

    recipe = zoo.recipe(
        f"pose-{kind}-digits", limit_train=100, batch_size=50, z_dim=4, hidden_dim=32
    )
    run = recipe.train(tmp_path / "run", epochs=2, progress=False)
    metrics = run.evaluate(particles=5, limit_test=40)
    assert metrics["kl_u"] == 0
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl_z"])
    assert 5 < metrics["svm_accuracy"] <= 100
