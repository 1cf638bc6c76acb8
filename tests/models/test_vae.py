import torch
from pyro.distributions import Categorical, MixtureSameFamily
from pyro.distributions import Normal as NormalDensity
from pyro.infer import Predictive

from pyro_latents.distributions.likelihoods import Normal
from pyro_latents.models.vae import VAE, CodePrior
from pyro_latents.nets.mlp import DenseDecoder
from pyro_latents.programs import local_parameters


def test_prior_predictive_draws_need_no_observation():
    model = VAE(DenseDecoder(2, (1, 4, 4), [8]), z_dim=2)
    with local_parameters(model):
        assert model(size=7).shape == (7, 1, 4, 4)
        draws = Predictive(model, num_samples=3, parallel=True)(size=7)
    assert draws["x"].shape == (3, 7, 1, 4, 4)
    assert draws["z"].shape == (3, 7, 2)


def test_the_likelihood_can_be_chosen():
    model = VAE(DenseDecoder(2, (5,), [8]), z_dim=2, likelihood=Normal(0.1, event_dims=1))
    with local_parameters(model):
        assert model(torch.randn(3, 5)).shape == (3, 5)


def test_the_prior_can_be_chosen():
    class Mixture(CodePrior):
        def forward(self):
            parts = NormalDensity(torch.zeros(3, 2), 1.0).to_event(1)
            return MixtureSameFamily(Categorical(torch.ones(3)), parts)

    model = VAE(DenseDecoder(2, (5,), [8]), z_dim=2, likelihood=Normal(0.1, 1), prior=Mixture())
    with local_parameters(model):
        assert model(torch.randn(3, 5)).shape == (3, 5)
        assert Predictive(model, num_samples=4, parallel=True)(size=7)["z"].shape == (4, 7, 2)
