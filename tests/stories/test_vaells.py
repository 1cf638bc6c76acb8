import re
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import SVI
from pyro.optim import Adam

from pyro_latents import zoo
from pyro_latents.data.batches import Batches
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import ImportanceSampling
from pyro_latents.guides.vaells import AmortisedTransportGuide, TransportGuide
from pyro_latents.programs import local_parameters
from pyro_latents.stories import vaells
from pyro_latents.stories.vaells.metrics import (
    distance_from_orbit,
    distance_from_path,
    measure,
    of_circles,
    of_rotation,
    path_length_correlation,
    spiral_length,
)
from pyro_latents.stories.vaells.plan import even_codes, linear_start
from pyro_latents.training.checkpoint import CHECKPOINT
from pyro_latents.transport import TransportOperators, fit_operators, infer_coefficients, transport

ROOT = Path(__file__).parents[2]
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

    monkeypatch.setattr("pyro_latents.stories.vaells.plan.fit_operators", fit)
    recipe = zoo.recipe("vaells-swiss-roll", warm_up=2, candidates=2)
    recipe.train(tmp_path / "run", steps=3, progress=False, accelerator="cpu")
    assert bool(seen[0].any(-1).all())


def test_trains_and_measures_a_run(tmp_path):
    recipe = zoo.recipe("vaells-circles", validation=0, limit_train=60)
    run = recipe.train(tmp_path / "run", steps=4, progress=False, accelerator="cpu")
    metrics = run.evaluate(particles=3, limit_test=40)
    assert metrics["log_likelihood_particles"] == 3
    assert metrics["log_likelihood_points"] == 40
    assert {"normal_log_likelihood", "normal_per_class_log_likelihood"} <= metrics.keys()
    assert {"connor_log_likelihood", "sampled_mse", "elbo"} <= metrics.keys()
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
    assert not of_rotation(operators, codes, y)
    operators[2] = torch.tensor([[0.0, -0.1], [0.1, 0.0]])
    found = of_rotation(operators, codes, y)
    assert found["rotation"] == 2
    assert max(found["circle_0_from_path"], found["circle_1_from_path"]) < 1


def test_a_linear_start_is_refused_for_images():
    with pytest.raises(UserError, match="dense networks"):
        zoo.recipe("vaells-digits", linear_start=True)


def test_even_codes_are_spread_evenly_about_their_mean_wherever_it_is():
    recipe = zoo.recipe("vaells-swiss-roll")
    x = recipe.splits.train.x
    last = [m for m in recipe.model.encoder.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.bias += torch.tensor([3.0, -1.0])
        before = recipe.model.encoder(x)
        even_codes(recipe.model, x)
        codes = recipe.model.encoder(x)
    assert torch.allclose(torch.cov(codes.T), 0.5 * torch.eye(2), atol=2e-3)
    # A linear map, which leaves zero where it is.
    found = torch.linalg.lstsq(before, codes)
    assert torch.allclose(before @ found.solution, codes, atol=1e-3)


def test_anchors_are_training_points_of_their_class():
    recipe = zoo.recipe("vaells-digits")
    train = recipe.splits.train
    for label in (0, 7):
        of_class = train.x[train.y == label]
        for anchor in recipe.model.anchors[label]:
            assert bool((of_class == anchor).flatten(1).all(1).any())


def test_the_numbers_of_the_story_are_those_of_the_programs():
    recipe = zoo.recipe(
        "vaells-swiss-roll",
        noise_scale=0.5,
        rate=0.7,
        prior_noise_scale=0.1,
        prior_rate=0.2,
        x_scale=0.3,
    )
    model, guide = recipe.model, recipe.guide
    assert (model.noise_scale.item(), model.coefficient_rate.item()) == pytest.approx((0.1, 0.2))
    assert (guide.noise_scale, guide.coefficient_rate) == (0.5, 0.7)
    assert model.likelihood.scale == 0.3


def test_weights_are_one_but_for_those_of_the_phases():
    recipe = zoo.recipe("vaells-circles")
    assert recipe.loss.model_weights == {"x": 1.0, "z": 1.0, "c": 1.0}
    assert recipe.loss.guide_weights == {}
    phases = zoo.recipe("vaells-digits", warm_up=3).plan.phases
    weights = {name: phases[name].loss.model_weights for name in ("network", "operators")}
    # Equation (12) has no 1/N_a.
    assert weights == {
        "network": {"x": 1.0, "z": 1e-4, "c": 1e-4, "k": 0.0},
        "operators": {"x": 1e-4, "z": 1.0, "c": 1.0, "k": 0.0},
    }


@pytest.mark.parametrize("closest_anchor", [True, False])
def test_the_objective_is_the_formula_up_to_constants(closest_anchor):
    numbers = {"noise_scale": 0.8, "rate": 0.6, "prior_noise_scale": 1.2, "prior_rate": 0.2}
    recipe = zoo.recipe("vaells-swiss-roll", closest_anchor=closest_anchor, x_scale=2.0, **numbers)
    model, (x, *_) = recipe.model, recipe.first_batch(size=7)
    operators = model.operators
    operators.psi.data = torch.tensor([[[-0.1, -1.0], [0.9, -0.1]]])

    def formula(held):
        z, c = held.values["z"], held.guide_maxima["c"]
        reconstruction = (x - model.decoder(z)).square().sum(1)
        distance = (z - operators(c, model.encoder(x))).square().sum(1)
        energies, objectives = [], []
        for start in model.starts():
            c_k, objective = operators.infer(start.expand_as(z), z, 5e-5)
            from_anchor = (z - operators(c_k, start.expand_as(z))).square().sum(1)
            energies.append(-from_anchor / (2 * 1.44) - 0.2 * c_k.abs().sum(1))
            objectives.append(objective)
        energy = torch.stack(energies)
        nearest = torch.stack(objectives).argmin(0, keepdim=True)
        prior = energy.gather(0, nearest)[0] if closest_anchor else energy.logsumexp(0)
        posterior = -distance / (2 * 0.64) - 0.6 * c.abs().sum(1)
        return (reconstruction / (2 * 4) + posterior - prior).sum().item()

    def both():
        terms, held = recipe.loss.hold(model, recipe.guide, x)
        return sum(terms.values()).item(), formula(held)

    with torch.no_grad(), local_parameters(model, recipe.guide):
        (loss, expected), (other, also) = both(), both()
    assert loss != pytest.approx(other, abs=1e-3)
    assert loss - other == pytest.approx(expected - also, abs=1e-3)


def test_operators_decay_as_a_penalty_would_have_it():
    recipe = zoo.recipe("vaells-circles")
    psi = recipe.model.operators.psi
    optimizer = recipe.plan.build_optimizers()["operators"]
    psi.grad = torch.zeros_like(psi)
    before = psi.detach().clone()
    optimizer.step()
    (penalty,) = torch.autograd.grad(0.01 / 2 * psi.square().sum(), psi)
    # In units of zeta_4, which is there a million times that of the tables.
    torch.testing.assert_close(psi, before - 7e-3 * penalty)


def test_a_step_of_the_operators_is_that_of_the_tables_whatever_the_width():
    moved = []
    for width in (1e-3, 1.0):
        recipe = zoo.recipe("vaells-swiss-roll", prior_noise_scale=width, x_scale=10 * width)
        optimizer = recipe.plan.build_optimizers()["operators"]
        psi = recipe.model.operators.psi
        before = psi.detach().clone()
        psi.grad = torch.ones_like(psi) / width**2
        optimizer.step()
        moved.append(psi.detach() - before)
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("name", ["vaells-swiss-roll", "vaells-circles"])
def test_operators_of_manifolds_take_every_step_at_the_largest_size(name, tmp_path):
    recipe = zoo.recipe(name, candidates=0, network_steps=1, operator_steps=1)
    psi, steps = recipe.model.operators.psi, 8
    seen: list[torch.Tensor] = []
    psi.register_post_accumulate_grad_hook(lambda p: seen.append(p.detach().clone()))
    recipe.train(tmp_path / "run", steps=steps, progress=False, accelerator="cpu")
    # The gradient of each step sees what the one before has made of the operators.
    seen.append(psi.detach().clone())
    changes = [not torch.equal(a, b) for a, b in zip(seen[:-1], seen[1:], strict=True)]
    assert changes == [False, True] * (steps // 2)
    content = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=False)
    (group,) = content["optimizers"]["operators"]["param_groups"]
    largest = recipe.story.max_operator_learning_rate * recipe.story.prior_noise_scale**2
    of_last_step = recipe.story.build_schedule()(steps - 1, 0, steps)
    assert float(group["lr"]) == pytest.approx(of_last_step * largest)


def test_the_phases_take_turns_after_the_warm_up():
    recipe = zoo.recipe("vaells-digits", warm_up=3, network_steps=2, operator_steps=1)
    plan = recipe.plan
    names = [plan.phase_of(step) for step in range(9)]
    assert names == ["warm-up"] * 3 + ["network", "network", "operators"] * 2
    stepped = {name: list(plan.phases[name].optimizers) for name in names}
    assert stepped == {
        "warm-up": ["network"],
        "network": ["network", "anchors"],
        "operators": ["operators"],
    }
    assert [plan.rates["network"](step) for step in (0, 2, 3, 9)] == [1.0, 1.0, 0.1, 0.1]


def test_every_parameter_is_stepped_by_one_optimiser():
    recipe = zoo.recipe("vaells-digits", guide="amortised", num_anchors=2)
    optimizers = recipe.plan.build_optimizers()
    held = [p for o in optimizers.values() for group in o.param_groups for p in group["params"]]
    both = torch.nn.ModuleList([recipe.model, recipe.guide])
    assert {id(p) for p in held} == {id(p) for p in both.parameters()}
    assert len(held) == len({id(p) for p in held})


def test_a_model_is_measured_alike_whatever_guide_it_has():
    recipe = zoo.recipe("vaells-swiss-roll", guide="amortised", candidates=0)
    batches = recipe.batches("test", limit=5)
    assert isinstance(recipe.guide, AmortisedTransportGuide)
    sampling = ImportanceSampling(4, 5)
    found = recipe.story.metrics(recipe, batches, sampling)
    searched = recipe.with_programs(recipe.model, TransportGuide(recipe.model))
    other = measure(searched, batches, sampling)
    assert found.keys() == other.keys()
    unlike = {n for n in found if not torch.equal(*map(torch.as_tensor, (found[n], other[n])))}
    assert unlike <= {"elbo"}


def test_the_story_lists_its_files():
    named = {ROOT / name for name in re.findall(r"`([a-z_/]+\.py)`", str(vaells.__doc__))}
    package = ROOT / "pyro_latents"
    named = {path if path.exists() else package / path.relative_to(ROOT) for path in named}
    assert all(path.exists() for path in named)
    own = [*(package / "stories" / "vaells").glob("*.py"), *(ROOT / "guides").glob("vaells*.py")]
    assert {path for path in own if path.name != "__init__.py"} <= named


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vaells-mnist", {"search": "global"}, "--search global needs --num-operators 1"),
        ("vaells-swiss-roll", {"network_steps": 0}, "give both --network-steps"),
        ("vaells-swiss-roll", {"num_anchors": 0}, "--num-anchors must be positive; got 0"),
        ("vaells-swiss-roll", {"num_operators": 0}, "--num-operators must be positive"),
        ("vaells-swiss-roll", {"rate": 0.0}, "--rate must be positive"),
        ("vaells-swiss-roll", {"prior_rate": 0.0}, "--prior-rate must be positive"),
        ("vaells-swiss-roll", {"noise_scale": -1.0}, "--noise-scale must be positive"),
        ("vaells-swiss-roll", {"prior_noise_scale": 0.0}, "--prior-noise-scale must be positive"),
        ("vaells-digits", {"fit_at": 10}, "--fit-at must be after the warm-up"),
        ("vaells-swiss-roll", {"warm_up": -1}, "--warm-up must not be negative"),
        ("vaells-swiss-roll", {"latent_scale": float("nan")}, "--latent-scale must be finite"),
        ("vaells-swiss-roll", {"search": "locale"}, "did you mean local"),
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
