import pytest

from pyro_latents.errors import UserError
from pyro_latents.recipes.pose_tvae import RECIPES, PoseDTVAESettings, PoseTVAESettings


def test_each_story_has_its_three_recipes():
    assert sorted(RECIPES) == [
        f"pose-{kind}-{data}"
        for kind in ("dtvae", "tvae")
        for data in ("digits", "mnist", "rotated-mnist")
    ]


def test_the_defaults_are_the_thesis():
    settings = RECIPES["pose-dtvae-mnist"]
    assert (settings.epochs, settings.hidden_dim, settings.localiser_dim) == (50, 256, 128)
    assert settings.validation == 0
    assert PoseTVAESettings(data="mnist", warp="tps").build_warp().num_parameters == 18
    assert settings.num_turns == 1


@pytest.mark.parametrize(
    ("prior", "warp", "u_dim"),
    [
        ("none", "tps", 18),
        ("fitted", "affine5", 5),
        ("affine5", "affine6", 5),
        ("full-3", "tps", 3),
    ],
)
def test_the_prior_sets_the_size_of_the_pose(prior, warp, u_dim):
    settings = PoseTVAESettings(data="digits", pose_prior=prior, warp=warp)
    assert settings.build_model(lambda: None).u_dim == u_dim


ERRORS = {
    "prior": (
        dict(pose_prior="gamma"),
        "unknown --pose-prior 'gamma': give none, identity, fitted",
    ),
    "rank": (dict(pose_prior="full-7"), "full-K with K from 1 to 6"),
    "no rank": (dict(pose_prior="full-"), "full-K with K from 1 to 6"),
    "spline": (dict(pose_prior="affine5", warp="tps"), "add --warp affine5"),
    "control": (dict(num_control=1), "--num-control must be at least 2; got 1"),
    "turns": (dict(num_turns=8), "add --num-turns 1, or --warp affine5 --pose-prior none"),
    "no turn": (dict(num_turns=0), "--num-turns must be positive; got 0"),
    "code": (dict(z_dim=0), "--z-dim must be positive; got 0"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(options, message):
    with pytest.raises(UserError, match=message):
        PoseDTVAESettings(data="digits", **options)


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
