from dataclasses import replace

import pytest
import torch

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.data.sources import load
from pyro_latents.errors import UserError
from pyro_latents.nets.sets import Pool
from pyro_latents.stories.equivae.batches import Complementary, WithSets
from pyro_latents.stories.equivae.metrics import distance_error
from pyro_latents.stories.equivae.objective import SupervisedBound
from pyro_latents.stories.equivae.recipes import RECIPES, EquiVAEStory
from pyro_latents.training import loop
from pyro_latents.training.checkpoint import read_checkpoint

SUPERVISED = ["equivae-digits", "equivae-mnist", "equivae-svhn"]
SMALL = {"width": 4, "r_dim": 4, "v_dim": 3, "batch_size": 50}


def test_the_supervised_recipes_and_the_sizes_of_the_paper():
    assert set(SUPERVISED) <= set(RECIPES)
    settings = RECIPES["equivae-mnist"]
    assert (settings.r_dim, settings.v_dim, settings.m_max, settings.epochs) == (16, 16, 7, 40)
    assert settings.validation == 5_000
    svhn = RECIPES["equivae-svhn"]
    assert (svhn.m_max, svhn.epochs, svhn.validation) == (10, 90, 3_257)


@pytest.fixture(scope="module")
def splits():
    """A few digits, a point of each class twice in the validation data too."""
    return load("digits", validation=100, limit_train=60)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_split_says_whether_points_leave_themselves_out(splits, split):
    # The same points in every split: their contents cannot tell.
    same = replace(splits, validation=splits.train, test=splits.train)
    maker = RECIPES["equivae-digits"].build_batches(split, same)
    assert isinstance(maker, Complementary if split == "train" else WithSets)
    batches, found = Batches(maker, 60, seed=0), 0
    for epoch in range(10):
        batches.set_epoch(epoch)
        x, _, sets = batches.batch(0)
        members = sets.members if isinstance(sets, Pool) else sets
        same = (members == x[:, None]).flatten(2).all(-1)
        found += int((same & (sets.shares > 0) if isinstance(sets, Pool) else same).sum())
    assert (found == 0) == (split == "train")


def test_outside_of_training_sets_are_as_large_as_they_get(splits):
    maker = RECIPES["equivae-digits"].build_batches("test", splits)
    _, _, sets = Batches(maker, 20, seed=0).batch(0)
    assert sets.shape[:2] == (20, 7)


def test_the_class_weights_are_the_frequencies():
    recipe = zoo.recipe("equivae-digits")
    y = recipe.splits.train.y
    torch.testing.assert_close(recipe.model.class_weights, torch.bincount(y) / len(y))


def test_training_leaves_the_class_means_behind():
    recipe = zoo.recipe("equivae-digits", limit_train=200, **SMALL)
    assert isinstance(recipe.loss, SupervisedBound)
    assert not recipe.model.class_means.any()
    recipe.plan.before_keeping()
    train = recipe.splits.train
    codes = recipe.model.embed(train.x)
    expected = torch.stack([codes[train.y == label].mean(0) for label in range(10)])
    torch.testing.assert_close(recipe.model.class_means, expected)


def test_best_and_last_parameters_have_class_means_also_after_a_kill(tmp_path, monkeypatch):
    def train(name, **options):
        recipe = zoo.recipe("equivae-digits", limit_train=200, validation=100, **SMALL, **patience)
        recipe.train(tmp_path / name, epochs=1, progress=False, accelerator="cpu", **options)

    def killed(self, name):
        raise KeyboardInterrupt

    patience = {"patience": 9}
    train("best")
    patience = {}
    # The checkpoint of the epoch's end is there, and not yet what is kept.
    monkeypatch.setattr(loop, "MIN_STEPS_BETWEEN_CHECKPOINTS", 1)
    with monkeypatch.context() as at_the_end:
        at_the_end.setattr(loop.Loop, "_keep", killed)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    train("killed", resume=True)
    for path in ("best/best.ckpt", "best/checkpoint.ckpt", "killed/checkpoint.ckpt"):
        parameters = read_checkpoint(tmp_path / path)["parameters"]
        assert parameters["model.invariant.class_means"].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_class_means_of_other_number_formats(dtype):
    recipe = zoo.recipe("equivae-digits", limit_train=200, **SMALL)
    recipe.to("cpu")
    recipe.model.to(dtype)
    recipe.plan.before_keeping()
    assert recipe.model.class_means.dtype == dtype
    assert recipe.model.class_means.isfinite().all()


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
    assert {path.name for path in run.plot()} == {
        "images.png",
        "styles.png",
        "history.png",
    }


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
        EquiVAEStory(data="digits", **options)


def test_a_class_with_one_example_is_named():
    recipe = zoo.recipe("equivae-digits", limit_train=11)
    with pytest.raises(UserError, match="class [0-9] has (1|no) labelled example"):
        recipe.batches("train")
