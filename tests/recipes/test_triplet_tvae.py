import pyro
import pytest
import torch
from pyro.infer import SVI

from pyro_latents import zoo
from pyro_latents.data.batches import Batches, Plain
from pyro_latents.errors import UserError
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.models.triplet_tvae import SeveralViewsTVAE
from pyro_latents.recipes.triplet_tvae import (
    RECIPES,
    TripletSettings,
    VAEPlusSettings,
    image_codes,
)

SMALL = {"limit_train": 60, "batch_size": 30, "z_dim": 4, "validation": 30}


def test_the_recipes_of_the_story():
    assert sorted(RECIPES) == [
        "triplet-tvae-digits",
        "triplet-tvae-fashion-mnist",
        "triplet-tvae-mnist",
        "vae-plus-fashion-mnist",
        "vae-plus-mnist",
    ]


@pytest.mark.parametrize("name", ["triplet-tvae-mnist", "vae-plus-fashion-mnist"])
def test_the_defaults_are_those_of_appendix_b(name):
    s = RECIPES[name]
    assert (s.epochs, s.batch_size, s.learning_rate, s.halve_every) == (200, 100, 1e-4, 50)


def test_the_objective_is_equation_3_with_the_indirect_term():
    loss = TripletSettings(data="mnist", mmd_weight=0.3).build_loss()
    assert loss.mmd_scale == {"z": 0.3, "z1": 0.3, "z2": 0.3, "T": 0.0}
    assert loss.prior_of == {"z0": "z"}


def test_the_direct_objective_is_equation_3():
    settings = TripletSettings(data="mnist", mmd_weight=0.3, coherence="direct")
    assert settings.build_loss().mmd_scale["z0"] == 0.3
    assert settings.build_loss().prior_of == {}
    assert not settings.build_model(lambda: None).indirect


@pytest.mark.parametrize(
    ("guide", "options"),
    [
        ("paper", {}),
        ("gaussian-transformation", {"transformation": "matrix", "transformation_weight": 1.0}),
        ("flow", {"coherence": "direct", "kernel": "rbf", "bandwidth": "median"}),
        ("full-rank", {}),
        ("paper", {"views": "pixelations", "num_views": 3}),
    ],
)
def test_a_run_is_trained_and_measured(guide, options, tmp_path):
    recipe = zoo.recipe("triplet-tvae-digits", guide=guide, **SMALL, **options)
    run = recipe.train(tmp_path / "run", epochs=2, progress=False)
    metrics = run.evaluate(particles=5, limit_test=20)
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl_z"], rel=1e-5)
    assert metrics["log_likelihood_particles"] == 5
    assert 0 <= metrics["knn_accuracy"] <= 100
    assert run.plot()


def test_vae_plus_is_measured_on_the_images_as_they_are(tmp_path):
    zoo_name = "vae-plus-digits-for-tests"
    if zoo_name not in zoo.recipes():
        zoo.register(zoo_name, VAEPlusSettings(data="digits"))
    recipe = zoo.recipe(zoo_name, **SMALL)
    run = recipe.train(tmp_path / "run", epochs=1, progress=False)
    metrics = run.evaluate(particles=5, limit_test=20)
    trained = run.recipe
    test = trained.splits.test.take(slice(20))
    terms = bound_terms(trained.model, trained.guide, Plain(test), seed=trained.seed)
    assert metrics["elbo"] == pytest.approx(terms["elbo"])


def test_a_step_of_plain_svi_has_the_loss_of_the_trainer():
    losses = []
    for _ in range(2):
        recipe = zoo.recipe("triplet-tvae-digits", **SMALL)
        batch = Batches(recipe.batches(), 30, seed=0).batch(0)
        if not losses:
            torch.manual_seed(5)
            svi = SVI(recipe.model, recipe.guide, pyro.optim.Adam({"lr": 1e-3}), recipe.loss)
            losses.append(svi.step(*batch))
        else:
            module = recipe.settings.training_module(recipe)
            torch.manual_seed(5)
            losses.append(module.elbo(*batch).item())
    assert losses[0] == losses[1]


def test_codes_are_the_means_of_the_image_posterior():
    recipe = zoo.recipe("triplet-tvae-digits", **SMALL)
    x = recipe.splits.test.x[:5]
    expected = recipe.guide.posterior(x).mean
    torch.testing.assert_close(image_codes(recipe.guide, x), expected.detach())
    image = recipe.guide.image_guide()
    torch.testing.assert_close(image_codes(image, x), expected.detach())


def test_pixelations_have_a_model_without_inverses():
    settings = TripletSettings(data="digits", views="pixelations", num_views=3)
    model = settings.build_model(lambda: None)
    assert isinstance(model, SeveralViewsTVAE)
    assert set(settings.build_loss().mmd_scale) == {"z", "z1", "z2", "z3", "T1", "T2", "T3"}


ERRORS = {
    "weight": ({"mmd_weight": -1.0}, "--mmd-weight must not be negative; got -1"),
    "batch": ({"batch_size": 1}, "--batch-size must be at least 2"),
    "views": ({"num_views": 3}, "--num-views is for --views pixelations"),
    "code": ({"z_dim": 0}, "--z-dim must be at least 1"),
    "crop": ({"crop": 2.0}, "the crop is a part"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(options, message):
    with pytest.raises(UserError, match=message):
        TripletSettings(data="digits", **options)


def test_vae_plus_rejects_binarised_images():
    with pytest.raises(UserError, match="--binarise is not for vae-plus"):
        VAEPlusSettings(data="mnist", binarise=True)
