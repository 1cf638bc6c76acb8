import pytest
import torch

from pyro_latents import zoo
from pyro_latents.data.sets import Complementary
from pyro_latents.errors import UserError
from pyro_latents.evaluation.set_classifiers import distance_error
from pyro_latents.recipes.equivae import RECIPES, EquiVAESettings

SUPERVISED = ["equivae-digits", "equivae-mnist", "equivae-svhn"]
SMALL = {"width": 4, "r_dim": 4, "v_dim": 3, "batch_size": 50}


def test_the_supervised_recipes_and_the_sizes_of_the_paper():
    assert set(SUPERVISED) <= set(RECIPES)
    settings = RECIPES["equivae-mnist"]
    assert (settings.r_dim, settings.v_dim, settings.m_max, settings.epochs) == (16, 16, 7, 40)
    assert settings.validation == 5_000
    svhn = RECIPES["equivae-svhn"]
    assert (svhn.m_max, svhn.epochs, svhn.validation) == (10, 90, 3_257)


def test_only_the_training_points_leave_themselves_out():
    recipe = zoo.recipe("equivae-digits", limit_train=200)
    makers = [recipe.batches(split) for split in ("train", "validation", "test")]
    assert all(isinstance(maker, Complementary) for maker in makers)
    assert [maker.own for maker in makers] == [True, False, False]
    copies = recipe.splits.to("cpu")
    moved = recipe.splits.train.take(torch.arange(200))
    assert recipe.settings.build_batches(moved, copies).own


def test_the_class_weights_are_the_frequencies():
    recipe = zoo.recipe("equivae-digits")
    y = recipe.splits.train.y
    torch.testing.assert_close(recipe.model.class_weights, torch.bincount(y) / len(y))


def test_a_run_is_trained_measured_and_drawn(tmp_path):
    recipe = zoo.recipe("equivae-digits", limit_train=300, decoder="conv", **SMALL)
    run = recipe.train(tmp_path / "run", epochs=2, progress=False)
    assert run.recipe.model.class_means.abs().sum() > 0
    torch.testing.assert_close(run.recipe.model.class_means, recipe.model.class_means)
    metrics = run.evaluate(particles=50, likelihood_points=10, limit_test=40)
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl_v"])
    assert metrics["elbo_unlabelled"] < metrics["log_likelihood"] + 20
    assert 0 <= metrics["distance_error"] < 90
    assert metrics["log_likelihood_particles"] == 50
    assert {path.name for path in run.plot()} == {"images.png", "history.png"}


def test_the_distance_error_falls(tmp_path):
    recipe = zoo.recipe("equivae-digits", dropout=0.0, learning_rate=3e-3, batch_size=50, m_max=3)
    test, train = recipe.splits.test, recipe.splits.train
    recipe.model.refresh_class_means(train.x, train.y)
    before = distance_error(recipe.model.embed(test.x), recipe.model.class_means, test.y)
    run = recipe.train(tmp_path / "run", epochs=4, progress=False)
    metrics = run.evaluate(particles=10, likelihood_points=2)
    assert metrics["distance_error"] < before - 10


ERRORS = {
    "code": (dict(r_dim=0), "--r-dim must be positive; got 0"),
    "set": (dict(m_max=0), "--m-max must be positive; got 0"),
    "dropout": (dict(dropout=1.0), "--dropout must be at least 0 and below 1; got 1.0"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(options, message):
    with pytest.raises(UserError, match=message):
        EquiVAESettings(data="digits", **options)


def test_a_class_with_one_example_is_named():
    recipe = zoo.recipe("equivae-digits", limit_train=11)
    with pytest.raises(UserError, match="class [0-9] has (1|no) labelled example"):
        recipe.batches("train")
