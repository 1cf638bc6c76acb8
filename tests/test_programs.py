import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Categorical, Normal
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_latents import SVI
from pyro_latents.guides.amortised import Amortised
from pyro_latents.guides.families import Flow, MeanField
from pyro_latents.models.vae import VAE
from pyro_latents.nets.mlp import DenseDecoder, DenseEncoder
from pyro_latents.programs import Centred, centre, evaluation_mode, local_parameters

SHAPE = (1, 4, 4)


def build():
    model = VAE(DenseDecoder(2, SHAPE, [8]), z_dim=2)
    guide = Amortised(DenseEncoder(SHAPE, [8]), z=MeanField(8, 2))
    return model, guide


def flat(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def test_two_models_in_one_process_both_learn():
    x = torch.rand(16, *SHAPE).round()
    for _ in range(2):
        model, guide = build()
        before = flat(model)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        losses = [svi.step(x) for _ in range(40)]
        assert not torch.equal(before, flat(model))
        assert sum(losses[-5:]) < sum(losses[:5])


OPTIMISERS = {
    "adam": lambda: pyro.optim.Adam({"lr": 0.01}),
    "exponential": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "gamma": 0.9}
    ),
    "clipped": lambda: pyro.optim.Adam({"lr": 0.01}, {"clip_norm": 1.0}),
    "clipped adam": lambda: pyro.optim.ClippedAdam({"lr": 0.01}),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_our_svi_gives_the_losses_of_pyros(optimiser):
    x = torch.rand(16, *SHAPE)
    losses = []
    for kind in (pyro.infer.SVI, SVI):
        pyro.clear_param_store()
        torch.manual_seed(3)
        model, guide = build()
        svi = kind(model, guide, OPTIMISERS[optimiser](), Trace_ELBO())
        losses.append([svi.step(x) for _ in range(5)] + [svi.evaluate_loss(x)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_options_by_name_are_refused():
    with pytest.raises(ValueError, match="give the optimiser one dictionary of options"):
        SVI(*build(), pyro.optim.Adam(lambda name: {"lr": 0.01}), Trace_ELBO())


def test_evaluating_changes_no_parameter():
    model, guide = build()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(torch.rand(4, *SHAPE))
    before = flat(model), flat(guide)
    svi.evaluate_loss(torch.rand(4, *SHAPE))
    assert torch.equal(before[0], flat(model))
    assert torch.equal(before[1], flat(guide))


def test_the_setting_of_pyro_is_put_back():
    with local_parameters(), pytest.raises(KeyError):
        raise KeyError
    assert pyro.settings.get("module_local_params") is False


def test_the_global_store_stays_empty():
    model, guide = build()
    with local_parameters(model, guide):
        Trace_ELBO()(model, guide)(torch.rand(4, *SHAPE)).backward()
    assert not list(pyro.get_param_store().keys())


def test_the_centre_is_the_mean_the_mode_of_what_is_discrete_or_a_draw():
    assert centre(Normal(2.0, 1.0)) == 2.0
    assert centre(Categorical(torch.tensor([0.1, 0.6, 0.3]))) == 1
    flow = Flow(4, 3)(torch.zeros(5, 4))
    assert not torch.equal(centre(flow), centre(flow))


def test_latent_sites_are_given_their_centres_and_others_are_left():
    def model():
        with pyro.plate("data", 2):
            z = pyro.sample("z", Normal(torch.tensor([1.0, 2.0]), 1.0))
            pyro.sample("x", Normal(z, 1.0), obs=torch.zeros(2))

    trace = poutine.trace(Centred()(model)).get_trace()
    assert trace.nodes["z"]["value"].tolist() == [1.0, 2.0]
    assert trace.nodes["x"]["value"].tolist() == [0.0, 0.0]


def test_each_program_is_put_back_into_its_mode():
    model, guide = build()
    guide.eval()
    with evaluation_mode(model, guide, lambda: None):
        assert not model.training
    assert model.training
    assert not guide.training
