"""A guide that does not fit is told so, and which side to change."""

import pyro
import pytest
import torch
from pyro.distributions import Exponential, LogNormal, Normal

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.guides import GuideMismatch, check_guide
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import MeanField
from pyro_latents.models.vae import VAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder

X = torch.rand(4, 3)


def model(x):
    with pyro.plate("data", len(x), dim=-1):
        scale = pyro.sample("scale", Exponential(torch.ones(())))
        z = pyro.sample("z", Normal(torch.zeros(2), 1.0).to_event(1))
        loc = z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3)
        pyro.sample("x", Normal(loc, scale.unsqueeze(-1)).to_event(1), obs=x)


def guide(x, *, name="z", dims=2, plate=True, others=(), scale=None, drop=False):
    size = len(x)
    with pyro.plate("data" if plate else "elsewhere", size, dim=-1):
        zero = torch.zeros(())
        pyro.sample("scale", scale or LogNormal(zero, 1.0))
        for other in others:
            pyro.sample(other, Normal(zero, 1.0))
        if not drop:
            pyro.sample(name, Normal(torch.zeros(dims), 1.0).to_event(1))


def guide_with(**options):
    return lambda x: guide(x, **options)


def test_a_fitting_guide_passes():
    check_guide(model, guide, X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "w"}, r"samples 'w', and the model 'z' in its place: rename the site"),
        ({"drop": True}, r"does not sample 'z', latent in the model: add it to the guide"),
        ({"others": ["w"]}, r"samples 'w', which the model does not have: remove it"),
        ({"others": ["x"]}, r"samples 'x', observed in the model: remove it from the guide"),
        ({"dims": 5}, r"'z' has event shape \(2,\) in the model and \(5,\) in the guide"),
        (
            {"plate": False},
            r"'scale' is in plate 'data' of size 4 in the model, and in plate",
        ),
        ({"scale": Normal(-9.0, 0.1)}, r"values of 'scale' lie outside of its support"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(GuideMismatch, match=message):
        check_guide(model, guide_with(**options), X)


def test_a_batch_dimension_outside_of_the_plate():
    def wide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Normal(torch.zeros(2, len(x)), 1.0))

    def narrow(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Normal(torch.zeros(()), 1.0))
            loc = z.unsqueeze(-1).expand(*z.shape, 3)
            pyro.sample("x", Normal(loc, 1.0).to_event(1), obs=x)

    with pytest.raises(GuideMismatch, match=r"'z' of the guide has a batch dimension -2"):
        check_guide(narrow, wide, X)


def test_a_network_that_wants_one_batch_dimension():
    class Fussy(DenseDecoder):
        def forward(self, z):
            if z.dim() != 2:
                raise RuntimeError("expected two dimensions")
            return super().forward(z)

    vae = VAE(Fussy(2, (1, 4, 4)), 2)
    fitting = Amortised(DenseEncoder((1, 4, 4)), z=MeanField(256, 2))
    with pytest.raises(GuideMismatch, match="the model fails under 3 vectorised particles: expec"):
        check_guide(vae, fitting, torch.rand(4, 1, 4, 4))


def test_nothing_changes():
    recipe = zoo.recipe("vae-digits", guide="flow")
    before = {k: v.clone() for k, v in recipe.guide.state_dict().items()}
    x = torch.rand(3, 1, 28, 28)
    state = torch.get_rng_state()
    check_guide(recipe.model, recipe.guide, x)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in recipe.guide.state_dict().items())
    assert len(pyro.get_param_store()) == 0


EMBEDDED = [
    (name, guide)
    for name, settings in zoo.recipes().items()
    for guide in settings.guides
    if settings.data in ("digits", "swiss-roll", "circles")
]


@pytest.mark.parametrize(("name", "guide"), EMBEDDED)
def test_every_guide_of_the_zoo_fits(name, guide):
    recipe = zoo.recipe(name, guide=guide)
    batch = Batches(recipe.batches("train"), 4, seed=0).batch(0)
    check_guide(recipe.model, recipe.guide, *batch)


def test_training_checks_before_it_begins(tmp_path):
    recipe = zoo.recipe("vae-digits", guide=guide_with(drop=True))
    with pytest.raises(GuideMismatch):
        recipe.train(tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()
