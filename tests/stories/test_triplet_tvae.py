import pyro
import pytest
import torch
from host_reads import NoHostReads
from pyro import poutine
from pyro.infer import SVI

from pyro_latents import zoo
from pyro_latents.data.batches import Batches, Plain
from pyro_latents.errors import UserError
from pyro_latents.evaluation.bound import bound_terms
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.losses import TraceAnalytic_ELBO
from pyro_latents.models.triplet_tvae import SeveralViewsTVAE
from pyro_latents.programs import local_parameters
from pyro_latents.stories.triplet_tvae import metrics
from pyro_latents.stories.triplet_tvae.batches import Framed, shrunken
from pyro_latents.stories.triplet_tvae.metrics import image_codes
from pyro_latents.stories.triplet_tvae.plus import VAEPlusStory
from pyro_latents.stories.triplet_tvae.recipes import RECIPES, TripletTVAEStory

SMALL = {"limit_train": 60, "batch_size": 30, "z_dim": 4, "validation": 30}


def test_the_recipes_of_the_story():
    assert sorted(RECIPES) == [
        "triplet-tvae-digits",
        "triplet-tvae-fashion-mnist",
        "triplet-tvae-matrix-mnist",
        "triplet-tvae-mnist",
        "vae-plus-fashion-mnist",
        "vae-plus-mnist",
    ]


@pytest.mark.parametrize("name", ["triplet-tvae-mnist", "vae-plus-fashion-mnist"])
def test_the_defaults_are_those_of_appendix_b(name):
    s = RECIPES[name]
    assert (s.epochs, s.batch_size, s.learning_rate, s.halve_every) == (200, 100, 1e-4, 50)


def test_the_objective_is_equation_3_with_the_indirect_term():
    loss = TripletTVAEStory(data="mnist", coherence_weight=0.3).build_loss()
    assert loss.mmd_scale == {"z": 0.3, "z1": 0.3, "z2": 0.3, "T": 0.0}
    assert loss.copies == {"z0": "z"}


@pytest.mark.parametrize(
    ("coherence", "terms"),
    [
        ("conditional", {"mmd_z", "mmd_z1", "mmd_z2"}),
        ("joint", {"mmd_z", "mmd_z1", "mmd_z2"}),
        ("marginal", {"mmd_z", "mmd_z1", "mmd_z2"}),
        ("kl", {"kl_z", "kl_z1", "kl_z2"}),
    ],
)
def test_views_are_held_to_the_transformed_code(coherence, terms):
    recipe = zoo.recipe("triplet-tvae-digits", coherence=coherence, **SMALL)
    with local_parameters(recipe.model, recipe.guide):
        found = recipe.loss.terms(recipe.model, recipe.guide, *recipe.first_batch(size=5))
    assert set(found) == {"x", "x1", "x2", "x_indirect", "kl_z0", *terms}


def test_the_views_are_compared_given_their_code_and_transformation():
    recipe = zoo.recipe("triplet-tvae-digits", **SMALL)
    with local_parameters(recipe.model, recipe.guide):
        found = recipe.loss.parents(recipe.model, *recipe.first_batch(size=5))
    assert found == {"z": [], "T": [], "z1": ["z", "T"], "z2": ["z", "T"]}


@pytest.mark.parametrize("guide", TripletTVAEStory.guides)
def test_a_step_reads_no_value_of_the_device(guide):
    recipe = zoo.recipe("triplet-tvae-digits", guide=guide, **SMALL)
    batch = recipe.first_batch(size=5)
    with pyro.validation_enabled(False), local_parameters(recipe.model, recipe.guide):
        with NoHostReads():
            recipe.loss.differentiable_loss(recipe.model, recipe.guide, *batch).backward()


@pytest.mark.parametrize(
    ("guide", "options"),
    [
        ("paper", {}),
        ("gaussian-transformation", {"transformation": "matrix", "transformation_weight": 1.0}),
        ("flow", {"coherence": "kl"}),
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


def plus(**options):
    """The parts of a VAE+ on the digits."""
    name = "vae-plus-digits-for-tests"
    if name not in zoo.recipes():
        zoo.register(name, VAEPlusStory(data="digits"))
    return zoo.recipe(name, **SMALL, **options)


def terms_of(parts):
    with local_parameters(parts.model, parts.guide):
        return parts.loss.terms(parts.model, parts.guide, *parts.first_batch(size=5))


def test_vae_plus_is_measured_on_the_images_as_they_are(tmp_path):
    run = plus().train(tmp_path / "run", epochs=1, progress=False)
    metrics = run.evaluate(particles=5, limit_test=20)
    trained = run.recipe
    test = trained.splits.test.take(slice(20))
    pair = trained.story.image_pair(trained)
    terms = bound_terms(*pair, Plain(test), seed=trained.seed)
    assert metrics["elbo"] == pytest.approx(terms["elbo"])
    assert 0 <= metrics["knn_accuracy"] <= 100


@pytest.mark.parametrize(
    ("options", "kl"),
    [
        ({}, {"kl_z0", "kl_z1", "kl_z2"}),
        ({"views_kl": False}, {"kl_z0"}),
        ({"members": "image"}, {"kl_z0"}),
    ],
)
def test_vae_plus_is_the_bound_of_each_member(options, kl):
    parts = plus(**options)
    found = terms_of(parts)
    assert {name for name in found if name.startswith("kl")} == kl
    batch = parts.first_batch(size=5)
    assert {name for name in found if name.startswith("x")} == {"x", "x1", "x2"} - (
        set() if len(batch) == 3 else {"x1", "x2"}
    )
    model, guide = parts.model.image_model(), parts.guide.image_guide()
    for i, image in enumerate(batch):
        with local_parameters(model, guide):
            alone = TraceAnalytic_ELBO().terms(model, guide, image)["kl_z"]
        if f"kl_z{i}" in kl:
            torch.testing.assert_close(found[f"kl_z{i}"], alone)


def test_vae_plus_draws_views_of_its_own():
    parts = plus()
    with local_parameters(parts.model):
        trace = poutine.trace(parts.model).get_trace(size=3)
    assert [trace.nodes[name]["value"].shape for name in ("x", "x1", "x2")] == [(3, 1, 28, 28)] * 3


def test_a_shrunken_frame_is_that_of_training_and_of_measuring(monkeypatch):
    parts = zoo.recipe("triplet-tvae-digits", shrink=0.7, **SMALL)
    x = parts.splits.test.x[:5]
    seen = parts.batches("test")(torch.arange(5), torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(seen, shrunken(x, 0.7))
    assert 0.4 < seen.sum() / x.sum() < 0.6
    found = []
    image = parts.story.image_pair(parts)[1]
    kept = type(image).posterior
    monkeypatch.setattr(type(image), "posterior", lambda self, x: found.append(x) or kept(self, x))
    framed = Framed(parts.splits.test.take(slice(5)), parts.story)
    metrics.neighbours(parts, framed)
    assert any(len(x) == 5 and torch.equal(x, seen) for x in found)


def test_a_triplet_model_is_measured_on_the_images_as_they_are():
    parts = zoo.recipe("triplet-tvae-digits", **SMALL)
    sampling = ImportanceSampling(particles=3, points=10)
    found = parts.story.metrics(parts, parts.batches("test", limit=10), sampling)
    image_model, image_guide = parts.story.image_pair(parts)
    test = Plain(parts.splits.test.take(slice(10)))
    terms = bound_terms(image_model, image_guide, test, seed=parts.seed)
    assert torch.as_tensor(found["elbo"]).mean().item() == pytest.approx(terms["elbo"])
    assert parts.model.decoder is image_model.decoder


def test_batches_are_of_the_split_that_is_named():
    parts = zoo.recipe("triplet-tvae-digits", **SMALL)
    for split in ("train", "validation", "test"):
        assert parts.batches(split).examples is getattr(parts.splits, split)


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
            with local_parameters(recipe.model, recipe.guide):
                torch.manual_seed(5)
                loss = recipe.loss.differentiable_loss(recipe.model, recipe.guide, *batch)
            losses.append(loss.item())
    assert losses[0] == losses[1]


def test_codes_are_the_means_of_the_image_posterior():
    recipe = zoo.recipe("triplet-tvae-digits", **SMALL)
    x = recipe.splits.test.x[:5]
    expected = recipe.guide.posterior(x, x, x)["z0"].mean
    torch.testing.assert_close(image_codes(recipe.guide, x), expected.detach())
    image = recipe.guide.image_guide()
    torch.testing.assert_close(image_codes(image, x), expected.detach())


def test_pixelations_have_a_model_without_inverses():
    settings = TripletTVAEStory(data="digits", views="pixelations", num_views=3)
    model = settings.build_model(lambda: None)
    assert isinstance(model, SeveralViewsTVAE)
    assert set(settings.build_loss().mmd_scale) == {"z", "z1", "z2", "z3", "T1", "T2", "T3"}


ERRORS = {
    "weight": ({"coherence_weight": -1.0}, "--coherence-weight must not be negative; got -1"),
    "batch": ({"batch_size": 1}, "--batch-size must be at least 2"),
    "views": ({"num_views": 3}, "--num-views is for --views pixelations"),
    "code": ({"z_dim": 0}, "--z-dim must be positive; got 0"),
    "choice": (
        {"transformation": "matrx"},
        "unknown --transformation 'matrx': did you mean matrix",
    ),
    "density": ({"coherence": "kl", "transition_scale": 0.0}, "--transition-scale above 0"),
    "crop": ({"crop": 2.0}, "the crop is a part"),
    "frame": ({"shrink": 1.5}, "--shrink is a factor"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(options, message):
    with pytest.raises(UserError, match=message):
        TripletTVAEStory(data="digits", **options)
