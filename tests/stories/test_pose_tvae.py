import pytest
import torch

from pyro_latents import zoo
from pyro_latents.errors import UserError
from pyro_latents.evaluation.codes import codes
from pyro_latents.runs.registry import stored_story
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


def test_the_border_is_an_option():
    assert PoseTVAEStory(data="digits", border="zeros").build_warp().border == "zeros"


@pytest.mark.parametrize("warp", ["affine6", "tps"])
@pytest.mark.parametrize("guide", ["paper", "full-rank"])
def test_a_collapsed_pose_reads_the_middle_of_the_image_at_every_pixel(warp, guide):
    story = PoseTVAEStory(data="digits", warp=warp, start="collapsed", pose_prior="fitted")
    model = story.build_model(lambda: None)
    x = torch.rand(3, 1, 28, 28)
    u = codes(story.build_guide(guide, model), x, site="u")
    # About it: the network begins where it is drawn, and not at one pose for all images.
    assert not torch.equal(u[0], u[1])
    assert (u - model.warp.collapsed).abs().max() < 0.5
    ramp = torch.linspace(-1, 1, 28).expand(1, 1, 28, 28)
    read = model.warp(ramp, model.warp.collapsed)
    torch.testing.assert_close(read, torch.zeros_like(read), atol=1e-5, rtol=0)


def test_a_start_at_the_identity_is_one_pose_for_all_images():
    model = PoseTVAEStory(data="digits").build_model(lambda: None)
    guide = PoseTVAEStory(data="digits").build_guide("paper", model)
    torch.testing.assert_close(codes(guide, torch.rand(3, 1, 28, 28), site="u"), torch.zeros(3, 6))


def test_the_optimiser_of_the_thesis_trains(tmp_path):
    own = {"optimizer": "adadelta", "learning_rate": 1.0, "hidden_dim": 16}
    recipe = zoo.recipe("pose-tvae-digits", limit_train=100, **own)
    (optimizer,) = recipe.plan.build_optimizers().values()
    assert isinstance(optimizer, torch.optim.Adadelta)
    assert (optimizer.defaults["lr"], optimizer.defaults["rho"]) == (1.0, 0.95)
    before = [p.clone() for p in recipe.model.parameters()]
    recipe.train(tmp_path / "run", steps=2, progress=False)
    for old, new in zip(before, recipe.model.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_runs_of_the_version_that_had_another_option_for_it_are_opened(tmp_path):
    stored = {"recipe": "pose-tvae-digits", "settings": {"z_dim": 7, "adadelta": False}}
    assert stored_story(stored, tmp_path).z_dim == 7
    stored["settings"]["adadelta"] = True
    with pytest.raises(UserError, match="a setting adadelta that this version does not know"):
        stored_story(stored, tmp_path)


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
    "start": (dict(start="collapsed", warp="affine5"), "add --warp affine6 or --warp tps"),
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
