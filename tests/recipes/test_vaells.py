import pyro
import pytest
import torch
from pyro.infer import SVI
from pyro.optim import Adam

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.errors import UserError
from pyro_latents.evaluation.paths import (
    distance_from_orbit,
    distance_from_path,
    path_length_correlation,
    spiral_length,
)
from pyro_latents.parameters import local_parameters
from pyro_latents.recipes.vaells_metrics import of_circles, of_rotation
from pyro_latents.recipes.vaells_training import even_codes, linear_start
from pyro_latents.transport import TransportOperators, fit_operators, infer_coefficients, transport

SMALL = {
    "vaells-swiss-roll": {"candidates": 0},
    "vaells-circles": {},
    "vaells-digits": {"warm_up": 2, "num_anchors": 2},
}


@pytest.mark.parametrize("guide", ["paper", "amortised"])
@pytest.mark.parametrize("name", SMALL)
def test_a_step_under_svi_has_the_loss_of_the_module(name, guide):
    losses = []
    for _ in range(2):
        recipe = zoo.recipe(name, guide=guide, **SMALL[name])
        loader = Batches(recipe.batches(), 6, seed=0)
        batch = next(iter(loader))
        pyro.clear_param_store()
        torch.manual_seed(3)
        if losses:
            losses.append(
                SVI(recipe.model, recipe.guide, Adam({"lr": 0.0}), recipe.loss).step(*batch)
            )
        else:
            with local_parameters(recipe.model, recipe.guide):
                losses.append(recipe.loss(recipe.model, recipe.guide)(*batch).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_first_operators_are_fitted_to_encoded_anchors_after_a_warm_up(tmp_path, monkeypatch):
    seen = []

    def fit(start, *others, **options):
        seen.append(start)
        return fit_operators(start, *others, **options)

    monkeypatch.setattr("pyro_latents.recipes.vaells_training.fit_operators", fit)
    recipe = zoo.recipe("vaells-swiss-roll", warm_up=2, candidates=2)
    recipe.train(tmp_path / "run", steps=3, progress=False, accelerator="cpu")
    assert bool(seen[0].any(-1).all())


def test_trains_and_measures_a_run(tmp_path):
    recipe = zoo.recipe("vaells-circles", validation=0, limit_train=60)
    run = recipe.train(tmp_path / "run", steps=4, progress=False, accelerator="cpu")
    metrics = run.evaluate(particles=3, limit_test=40)
    assert metrics["log_likelihood_particles"] == 3
    assert metrics["log_likelihood"] >= metrics["elbo"]
    assert {"mse", "circle_0_from_orbit", "circles_separable"} <= metrics.keys()


def test_the_latent_scale_is_chosen_after_the_warm_up(tmp_path):
    recipe = zoo.recipe(
        "vaells-swiss-roll", latent_scale=0.0, warm_up=2, candidates=0, even_codes=False
    )
    recipe.train(tmp_path / "run", steps=3, progress=False, accelerator="cpu")
    codes = recipe.model.encoder(recipe.splits.train.x)
    assert recipe.model.operators.scale.item() == pytest.approx(codes.abs().mean().item(), rel=0.1)
    assert recipe.model.operators.scale.item() != 1.0


def test_a_linear_start_reconstructs_data_of_a_plane_by_linear_maps():
    recipe = zoo.recipe("vaells-circles")
    model, x = recipe.model, recipe.splits.train.x
    with torch.no_grad():
        linear_start(model, x)
        codes = model.encoder(x)
        # The data have noise of 0.01 around a plane.
        assert (model.decoder(codes) - x).square().mean().sqrt() < 0.011
        assert torch.allclose(
            model.encoder(2 * x[:1] - x[1:2]), 2 * codes[0] - codes[1], atol=1e-5
        )
        even_codes(model, x)
    metrics = of_circles(model.encoder(x).detach(), recipe.splits.train.y)
    assert metrics["circle_0_from_orbit"] < 5
    assert metrics["circles_separable"] == 100


def test_the_operator_that_rotates_is_found_if_there_is_one():
    recipe = zoo.recipe("vaells-circles")
    angle = torch.linspace(0, 6, 40)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    codes, y = torch.cat([circle, 2 * circle]), torch.arange(2).repeat_interleave(40)
    operators = recipe.model.operators.psi.detach()
    operators.copy_(torch.eye(2).expand_as(operators))
    assert not of_rotation(recipe, codes, y)
    operators[2] = torch.tensor([[0.0, -0.1], [0.1, 0.0]])
    found = of_rotation(recipe, codes, y)
    assert found["rotation"] == 2
    assert max(found["circle_0_from_path"], found["circle_1_from_path"]) < 1


def test_a_linear_start_is_refused_for_images():
    with pytest.raises(UserError, match="dense networks"):
        zoo.recipe("vaells-digits", linear_start=True)


def test_even_codes_have_equal_second_moments():
    recipe = zoo.recipe("vaells-swiss-roll")
    x = recipe.splits.train.x
    with torch.no_grad():
        even_codes(recipe.model, x)
    codes = recipe.model.encoder(x)
    assert torch.allclose(codes.T @ codes / len(codes), 0.5 * torch.eye(2), atol=1e-4)


def test_anchors_are_training_points_of_their_class():
    recipe = zoo.recipe("vaells-digits")
    train = recipe.splits.train
    for label in (0, 7):
        of_class = train.x[train.y == label]
        for anchor in recipe.model.anchors[label]:
            assert bool((of_class == anchor).flatten(1).all(1).any())


def test_weights_of_the_objective_are_those_of_the_tables():
    recipe = zoo.recipe("vaells-swiss-roll", noise_scale=0.5, zeta_2=3.0, zeta_4=2.0, x_scale=0.1)
    assert recipe.loss.model_weights["z"] == pytest.approx(2.0 * 0.25)
    assert recipe.loss.guide_weights["z"] == pytest.approx(3.0 * 0.25)
    assert recipe.loss.model_weights["x"] == pytest.approx(0.01 * 0.01)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vaells-mnist", {"search": "global"}, "--search global needs --num-operators 1"),
        ("vaells-swiss-roll", {"network_steps": 0}, "give both --network-steps"),
    ],
)
def test_says_what_is_wrong_with_a_setting(name, options, message):
    with pytest.raises(UserError, match=message):
        zoo.recipe(name, **options)


def test_fitted_operators_explain_the_pairs():
    truth = torch.tensor([[[-0.1, -1.0], [1.0, -0.1]]])
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([[1.0, 0.0]]).expand(200, 2)
    end = transport(truth, 6 * torch.rand(200, 1, generator=generator), start)
    psi = fit_operators(
        start, end, 1, 1e-6, candidates=20, finalists=3, steps=60, generator=generator
    )
    found = infer_coefficients(psi, start, end, 1e-6)[1].mean()
    assert found < 0.02 * (end - start).square().sum(1).mean()


def test_path_lengths_along_a_true_spiral_rank_its_points():
    operators = TransportOperators(1, 2)
    with torch.no_grad():
        operators.psi.copy_(torch.tensor([[[-0.1, -1.0], [1.0, -0.1]]]))
    c = torch.linspace(0.1, 8, 50)[:, None]
    start = torch.tensor([1.0, 0.0])
    codes = transport(operators.psi.detach(), c, start)
    assert path_length_correlation(operators, start, codes, c[:, 0], 1e-6) > 0.999


def test_the_length_of_a_spiral_is_the_integral_of_its_speed():
    t = torch.linspace(0, 5, 100_001, dtype=torch.float64)
    slow = torch.trapezoid((1 + t * t).sqrt(), t)
    assert torch.allclose(spiral_length(torch.tensor(5.0).double()), slow)


def test_distances_from_an_ellipse_are_zero_on_it_and_seen_off_it():
    angle = torch.linspace(0, 6, 40)
    codes = torch.stack([2 * angle.cos(), angle.sin()], 1)
    assert distance_from_orbit(codes) < 0.01
    codes[0] *= 1.3
    assert distance_from_orbit(codes) > 0.1


def test_distances_from_a_path_are_zero_on_it_and_seen_off_it():
    psi = torch.tensor([[0.0, -2.0], [0.5, 0.0]])
    angle = torch.linspace(0, 6, 40)
    codes = torch.stack([2 * angle.cos(), angle.sin()], 1)
    assert distance_from_path(psi, codes) < 0.01
    spiral = psi - 0.2 * torch.eye(2)
    assert distance_from_path(spiral, codes) > 0.1
    assert distance_from_path(torch.eye(2), codes) == float("inf")
    codes[0] *= 1.3
    assert distance_from_path(psi, codes) > 0.1
