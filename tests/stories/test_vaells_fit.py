import pytest
import torch
from torch import nn

from pyro_latents import zoo
from pyro_latents.programs import local_parameters
from pyro_latents.stories.vaells.fit import HIGHEST, fit_prior


def test_width_and_rate_are_those_that_the_data_were_drawn_with():
    recipe = zoo.recipe("vaells-swiss-roll", x_scale=0.02, prior_noise_scale=0.1, prior_rate=2.0)
    model = recipe.model
    model.operators.psi.data = torch.tensor([[[-0.1, -1.0], [0.9, -0.1]]])
    # Linear maps to the plane and back, and four anchors that are well apart.
    model.encoder, model.decoder = nn.Linear(20, 2), nn.Linear(2, 20)
    nn.init.orthogonal_(model.encoder.weight)
    nn.init.zeros_(model.encoder.bias)
    model.decoder.weight.data = model.encoder.weight.data.T.clone()
    nn.init.zeros_(model.decoder.bias)
    corners = torch.tensor([[1.0, 0.0], [0.0, 0.6], [-1.4, 0.0], [0.0, -0.9]])
    model.anchors.data = (corners @ model.decoder.weight.T)[None]
    torch.manual_seed(0)
    with torch.no_grad(), local_parameters(model):
        x = model(size=200).detach()
    recipe.splits.train.x[:200] = x
    model.noise_scale.fill_(1e-3)
    model.coefficient_rate.fill_(0.01)
    fit_prior(recipe)
    assert model.noise_scale.item() == pytest.approx(0.1, rel=0.2)
    assert model.coefficient_rate.item() == pytest.approx(2.0, rel=0.35)


def test_a_training_goes_on_with_what_was_fitted(tmp_path):
    recipe = zoo.recipe("vaells-swiss-roll", candidates=0, fit_at=2, limit_train=60, validation=0)
    run = recipe.train(tmp_path / "run", steps=3, progress=False, accelerator="cpu")
    fitted = run.parts.model
    assert fitted.noise_scale.item() != pytest.approx(1e-3)
    assert fitted.coefficient_rate.item() != pytest.approx(0.01)


def test_codes_that_need_no_path_are_fitted_with_a_rate_that_is_finite():
    recipe = zoo.recipe("vaells-swiss-roll", candidates=0, even_codes=False)
    recipe.model.operators.psi.data.zero_()
    fit_prior(recipe)
    assert 100 < recipe.model.coefficient_rate.item() <= HIGHEST
    assert recipe.model.noise_scale.isfinite()
