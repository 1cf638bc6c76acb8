import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO

from pyro_latents.data.affine import rotate
from pyro_latents.guides.pose_search import TurnSearch
from pyro_latents.programs import SVI, local_parameters
from pyro_latents.stories.pose_tvae.recipes import PoseDTVAEStory, PoseTVAEStory

KINDS = {"tvae": PoseTVAEStory, "dtvae": PoseDTVAEStory}


def make(kind: str, num_turns: int = 4):
    settings = KINDS[kind](
        data="digits", z_dim=3, hidden_dim=16, warp="affine5", num_turns=num_turns
    )
    torch.manual_seed(0)
    model = settings.build_model(lambda: None)
    return model, settings.build_guide("paper", model)


@pytest.fixture(params=KINDS)
def pair(request):
    return make(request.param)


def bar() -> torch.Tensor:
    """A bright bar to the right of the centre: no two quarter turns of it are alike."""
    image = torch.zeros(1, 28, 28)
    image[:, 12:16, 15:24] = 1
    return image


class KnownReference(torch.nn.Module):
    """A decoder that has learnt the bar, whatever the code."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (8 * bar() - 4).expand(*z.shape[:-1], 1, 28, 28)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quarter", range(4))
def test_the_best_turn_is_the_one_of_the_image(kind, quarter):
    model, guide = make(kind)
    model.decoder = KnownReference()
    angle = torch.tensor([quarter * math.pi / 2])
    u = guide.posterior(rotate(bar()[None], angle))["u"].mean[0].detach()
    inferred = model.warp.angle(u)
    assert math.cos(inferred - angle.item()) > 0.999


def test_one_turn_is_the_guide_itself():
    torch.manual_seed(0)
    model, searched = make("dtvae")
    x = torch.rand(3, 1, 28, 28)
    alone = TurnSearch(searched.guide, model.pixels, num_turns=1)
    plain = searched.guide.posterior(x)
    for name, q in alone.posterior(x).items():
        torch.testing.assert_close(q.mean, plain[name].mean)


def test_every_parameter_of_the_network_gets_a_gradient(pair):
    model, guide = pair
    with local_parameters(model, guide):
        TraceMeanField_ELBO(max_plate_nesting=1)(model, guide)(torch.rand(5, 1, 28, 28)).backward()
    for module in (model, guide):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_the_model_is_not_in_the_state_of_the_guide(pair):
    model, guide = pair
    assert not {id(p) for p in model.parameters()} & {id(p) for p in guide.parameters()}
    assert not any("decoder" in name or "model" in name for name in guide.state_dict())


def test_particles_and_prediction(pair):
    model, guide = pair
    x = torch.rand(5, 1, 28, 28)
    elbo = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    with local_parameters(model, guide):
        assert math.isfinite(elbo.loss(model, guide, x))
        draws = Predictive(poutine.uncondition(model), guide=guide, num_samples=4, parallel=True)(
            x
        )
    assert draws["x"].shape == (4, 5, 1, 28, 28)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_svi_gives_the_loss_of_local_parameters(kind):
    losses = []
    x = torch.rand(5, 1, 28, 28)
    for svi_class in (pyro.infer.SVI, SVI):
        pyro.clear_param_store()
        elbo = TraceMeanField_ELBO(max_plate_nesting=1)
        svi = svi_class(*make(kind), pyro.optim.Adam({"lr": 1e-2}), elbo)
        torch.manual_seed(1)
        losses.append([svi.step(x) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_rejects_no_turn():
    model, guide = make("tvae")
    with pytest.raises(ValueError, match="num_turns >= 1; got 0"):
        TurnSearch(guide.guide, model.pixels, num_turns=0)
