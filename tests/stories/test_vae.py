import pytest
import torch

from pyro_latents.distributions.von_mises_fisher import HypersphericalUniform
from pyro_latents.errors import UserError
from pyro_latents.models.vae import StandardNormal, UniformSphere, VampPrior
from pyro_latents.stories.vae import RECIPES, ManifoldVAEStory, VAEStory

KINDS = {"vae": StandardNormal, "hyperspherical-vae": UniformSphere, "vamp-vae": VampPrior}
MANIFOLDS = ("swiss-roll", "circles")


def test_the_recipes_of_connor_s_comparison_have_the_networks_of_table_2():
    names = {f"{kind}-{data}" for kind in KINDS for data in MANIFOLDS}
    stories = {name: story for name, story in RECIPES.items() if story.data in MANIFOLDS}
    assert stories.keys() == names
    for story in stories.values():
        assert (story.hidden_dims, story.z_dim, story.batch_size) == ((512,), 2, 30)
        assert (story.likelihood, story.learning_rate) == ("normal", 1e-3)
        assert story.guides == ("paper",)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_is_a_module_of_the_model(kind):
    from pyro_latents import zoo

    model = zoo.recipe(f"{kind}-circles", pseudo_inputs=5).model
    assert isinstance(model.prior, KINDS[kind])
    assert model.prior().event_shape == (2,)


def test_a_vamp_prior_shares_the_encoder_and_the_family_of_its_guide():
    from pyro_latents import zoo

    recipe = zoo.recipe("vamp-vae-circles", pseudo_inputs=5)
    assert recipe.guide.encoder is recipe.model.prior.encoder
    assert recipe.guide.families["z"] is recipe.model.prior.family
    rows = {tuple(row) for row in recipe.splits.train.x.tolist()}
    assert all(tuple(row) in rows for row in recipe.model.prior.pseudo_inputs.tolist())


@pytest.mark.parametrize("networks", ["conv", "dense"])
@pytest.mark.parametrize("prior", ["sphere", "vamp"])
def test_images_may_have_the_other_priors_too(prior, networks):
    from pyro_latents import zoo

    recipe = zoo.recipe("vae-digits", prior=prior, networks=networks, z_dim=3)
    recipe.check_guide()
    draws = recipe.model.prior().sample((4,))
    assert torch.allclose(draws.norm(dim=-1), torch.ones(4)) == (prior == "sphere")


def test_a_direction_has_the_uniform_density():
    assert isinstance(UniformSphere(3)(), HypersphericalUniform)


ERRORS = {
    "prior": (dict(prior="spere"), "did you mean sphere"),
    "networks": (dict(networks="convolution"), "conv"),
    "conv": (dict(data="circles"), "--networks conv is for images of 28 x 28, not for circles"),
    "pixels": (dict(data="circles", networks="dense"), "give --likelihood normal"),
    "sphere": (dict(prior="sphere", z_dim=1), "--prior sphere needs --z-dim 2"),
    "hidden": (dict(hidden_dims=()), "--hidden-dims must be positive; got"),
    "code": (dict(z_dim=0), "--z-dim must be positive; got 0"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_rejects(options, message):
    with pytest.raises(UserError, match=message):
        VAEStory(**{"data": "digits", **options})


def test_a_family_that_does_not_fit_the_prior_is_named():
    story = ManifoldVAEStory(data="circles", prior="sphere")
    with pytest.raises(UserError, match="--prior sphere goes with --guide paper alone; got flow"):
        story.build_guide("flow", story.build_model(lambda: None))
