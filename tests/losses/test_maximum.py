import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Categorical, Delta, Gamma, Laplace, Normal
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.optim import Adam

from pyro_latents.errors import UserError
from pyro_latents.losses.maximum import TraceMax_ELBO
from pyro_latents.transport import infer_coefficients, transport

F64 = torch.float64
# A shear: the path from a start is a straight line, on which the normal density is a normal one.
SHEAR = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=F64)
SPIRAL = torch.tensor([[[-0.1, -1.0], [0.9, -0.1]]], dtype=F64)
START = torch.tensor([[0.8, 0.5], [-0.3, 1.0]], dtype=F64)
Z = torch.tensor([[0.9, 0.52], [-0.8, 0.9]], dtype=F64)
RATE, NOISE = 0.5, 0.05


@pytest.fixture(autouse=True)
def _clean():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def path_model(psi, rate=RATE, noise=NOISE, solver="exact"):
    """`c ~ Laplace, z ~ N(T(c) start, noise^2)`, with z as the observation."""

    def solve(values):
        # The objective is -noise^2 times the log-density.
        return infer_coefficients(psi, START, Z, rate * noise**2)[0]

    def model():
        with pyro.plate("data", 2, dim=-1):
            c = pyro.sample(
                "c",
                Laplace(torch.zeros((), dtype=F64), 1 / rate).expand([2, 1]).to_event(1),
                infer={"maximize": None if solver is None else solve},
            )
            pyro.sample("z", Normal(transport(psi, c, START), noise).to_event(1), obs=Z)

    return model


def no_guide():
    pass


def log_joint(psi, c):
    residual = transport(psi, c, START) - Z
    log_p_z = -residual.square().sum(-1) / (2 * NOISE**2) - math.log(2 * math.pi * NOISE**2)
    return log_p_z + math.log(RATE / 2) - RATE * c.abs().squeeze(-1)


@pytest.mark.parametrize(("psi", "solver"), [(SPIRAL, "exact"), (SHEAR, "exact"), (SHEAR, None)])
def test_is_the_maximum_over_a_dense_grid(psi, solver):
    grid = torch.linspace(-8, 8, 200_001, dtype=F64)[:, None, None]
    dense = log_joint(psi, grid).amax(0).sum()
    loss = TraceMax_ELBO().loss(path_model(psi, solver=solver), no_guide)
    assert -loss == pytest.approx(dense.item(), abs=1e-5)


def test_is_the_integral_up_to_the_width_of_its_peak():
    grid = torch.linspace(-4, 4, 400_001, dtype=F64)[:, None, None]
    integral = (log_joint(SHEAR, grid).logsumexp(0) + math.log(8 / 400_000)).sum()
    # On a straight path the density is a normal in c with this width, and nearly flat factors.
    width = NOISE / START[:, 1]
    peak = (0.5 * math.log(2 * math.pi) + width.log()).sum()
    loss = TraceMax_ELBO().loss(path_model(SHEAR), no_guide)
    assert -loss + peak.item() == pytest.approx(integral.item(), abs=2e-3)


def test_gradient_equals_finite_differences_where_solver_and_density_agree():
    psi = SPIRAL.clone().requires_grad_()
    TraceMax_ELBO().differentiable_loss(path_model(psi), no_guide).backward()
    numeric = torch.zeros_like(psi)
    for i in range(2):
        for j in range(2):
            shift = torch.zeros_like(SPIRAL)
            shift[0, i, j] = 1e-5
            high, low = (
                TraceMax_ELBO().loss(path_model(SPIRAL + s), no_guide) for s in (shift, -shift)
            )
            numeric[0, i, j] = (high - low) / 2e-5
    assert torch.allclose(psi.grad, numeric, rtol=1e-4, atol=1e-5)


def test_without_auxiliary_sites_is_the_elbo():
    x = torch.randn(7, dtype=F64)
    loc = torch.zeros(7, dtype=F64, requires_grad=True)

    def model():
        with pyro.plate("data", 7), poutine.scale(scale=2.0):
            z = pyro.sample("z", Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", Normal(z, 0.5), obs=x)

    def guide():
        with pyro.plate("data", 7), poutine.scale(scale=2.0):
            pyro.sample("z", Normal(loc, 0.3))

    results = []
    for kind in (TraceMax_ELBO, Trace_ELBO):
        elbo = kind(num_particles=3, max_plate_nesting=1)
        pyro.set_rng_seed(1)
        loss = elbo.differentiable_loss(model, guide)
        results.append((loss, torch.autograd.grad(loss, loc)[0]))
    assert torch.allclose(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1])


def test_enumerated_sites_are_summed_as_by_pyro():
    x = torch.randn(5, dtype=F64)

    def model():
        with pyro.plate("data", 5), poutine.mask(mask=torch.arange(5) != 2):
            k = pyro.sample(
                "k",
                Categorical(torch.tensor([0.2, 0.5, 0.3], dtype=F64)),
                infer={"enumerate": "parallel"},
            )
            z = pyro.sample("z", Normal(torch.tensor([-1.0, 0.0, 2.0], dtype=F64)[k], 0.7))
            pyro.sample("x", Normal(z, 0.5), obs=x)

    def guide():
        with pyro.plate("data", 5), poutine.mask(mask=torch.arange(5) != 2):
            pyro.sample("z", Normal(x, 0.3))

    losses = []
    for elbo in (TraceMax_ELBO(max_plate_nesting=1), TraceEnum_ELBO(max_plate_nesting=1)):
        pyro.set_rng_seed(1)
        losses.append(elbo.loss(model, guide))
    assert losses[0] == pytest.approx(losses[1])


def auxiliary_pair(x):
    """A model and a guide that both have an auxiliary c, with a parameter each."""

    def solve(loc):
        return lambda values: (values["z"] - loc).detach()

    def model():
        slope = pyro.param("slope", torch.tensor(1.5, dtype=F64))
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("c", Laplace(x.new_zeros(()), 1.0), infer={"maximize": solve(0.0)})
            z = pyro.sample("z", Normal(c, 0.4))
            pyro.sample("x", Normal(slope * z, 0.5), obs=x)

    def guide():
        shift = pyro.param("shift", torch.tensor(0.2, dtype=F64))
        with pyro.plate("data", len(x), dim=-1):
            loc = x + shift
            c = pyro.sample("c", Laplace(x.new_zeros(()), 0.1), infer={"maximize": solve(loc)})
            pyro.sample("z", Normal(loc + c, 0.3))

    return model, guide


@pytest.mark.parametrize("vectorized", [False, True])
def test_all_faces_agree(vectorized):
    x = torch.randn(6, dtype=F64)
    model, guide = auxiliary_pair(x)

    def elbo():
        return TraceMax_ELBO(num_particles=2, vectorize_particles=vectorized, max_plate_nesting=1)

    def svi():
        return SVI(model, guide, Adam({"lr": 0.0}), elbo())

    losses = []
    for evaluate in (
        lambda: svi().step(),
        lambda: svi().evaluate_loss(),
        lambda: elbo()(model, guide)().item(),
        lambda: sum(elbo().terms(model, guide).values()).item(),
        lambda: -elbo().log_ratio(model, guide).mean(0).sum().item(),
    ):
        pyro.set_rng_seed(3)
        losses.append(evaluate())
    assert losses == pytest.approx([losses[0]] * 5)


def test_auxiliary_sites_of_model_and_guide_are_separate():
    x = torch.zeros(1, dtype=F64)
    model, guide = auxiliary_pair(x)
    pyro.set_rng_seed(0)
    terms, held = TraceMax_ELBO(max_plate_nesting=1).hold(model, guide)
    z = held.values["z"]
    assert torch.allclose(held.model_maxima["c"], z)
    assert torch.allclose(held.guide_maxima["c"], z - 0.2)
    expected = Normal(z, 0.4).log_prob(z) + Laplace(0.0, 1.0).log_prob(z)
    assert torch.allclose(terms["prior"], -expected.sum())


def test_weights_multiply_the_densities_of_their_site():
    model, guide = auxiliary_pair(torch.randn(4, dtype=F64))
    losses = {}
    for weights in ({}, {"c": 0.0}, {"z": 3.0}):
        pyro.set_rng_seed(5)
        elbo = TraceMax_ELBO(max_plate_nesting=1, model_weights=weights)
        losses[str(weights)], held = elbo.hold(model, guide)
    z = held.values["z"]
    without_c = losses["{'c': 0.0}"]["prior"] - losses["{}"]["prior"]
    assert torch.allclose(without_c, Laplace(0.0, 1.0).log_prob(z).sum())
    heavier = losses["{'z': 3.0}"]["prior"] - losses["{}"]["prior"]
    assert torch.allclose(heavier, -2 * Normal(z, 0.4).log_prob(z).sum())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"model_weights": {"zz": 3.0}}, "'zz', which is no site of the model: did you mean z"),
        ({"guide_weights": {"x": 3.0}}, "'x', which is no site of the guide: there are c, z"),
    ],
)
def test_a_weight_of_no_site_is_refused(weights, message):
    model, guide = auxiliary_pair(torch.randn(4, dtype=F64))
    with pytest.raises(UserError, match=message):
        TraceMax_ELBO(max_plate_nesting=1, **weights).loss(model, guide)


def joint_model(solver, other=None):
    """`a` and `b` have one solver, or each its own."""

    def model():
        with pyro.plate("data", 3):
            a = pyro.sample("a", Normal(torch.zeros((), dtype=F64), 1.0), infer=solver)
            b = pyro.sample("b", Normal(a, 2.0), infer=other or solver)
            pyro.sample("x", Normal(a + b, 0.5), obs=torch.ones(3, dtype=F64))

    return model


def test_one_solver_answers_for_several_sites_and_is_asked_once():
    asked = []

    def both(values):
        asked.append(dict(values))
        return {"a": torch.full((3,), 0.3, dtype=F64), "b": torch.full((3,), 0.6, dtype=F64)}

    terms, held = TraceMax_ELBO(max_plate_nesting=1).hold(
        joint_model({"maximize": both}), no_guide
    )
    assert len(asked) == 1
    apart = joint_model(
        {"maximize": lambda values: held.model_maxima["a"]},
        {"maximize": lambda values: held.model_maxima["b"]},
    )
    assert torch.equal(held.model_maxima["b"], torch.full((3,), 0.6, dtype=F64))
    same = TraceMax_ELBO(max_plate_nesting=1).terms(apart, no_guide)
    assert all(torch.allclose(terms[name], same[name]) for name in terms)


def test_a_joint_solver_is_asked_anew_in_each_run():
    count = iter(range(10))

    def both(values):
        value = torch.full((3,), float(next(count)), dtype=F64)
        return {"a": value, "b": value}

    model, loss = joint_model({"maximize": both}), TraceMax_ELBO(max_plate_nesting=1)
    first, second = (loss.hold(model, no_guide)[1].model_maxima for _ in range(2))
    assert first["a"][0] == first["b"][0] == 0
    assert second["a"][0] == second["b"][0] == 1


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (("a",), r"the maximiser of site 'b' answers for \['a'\] and not for it"),
        (("a", "b", "bb"), "a maximiser answers for 'bb', which is no site that names it"),
        (("a", "b", "x"), "a maximiser answers for 'x', which is no site that names it"),
    ],
)
def test_a_joint_solver_answers_for_the_sites_that_name_it(answers, message):
    def solver(values):
        return {name: torch.zeros(3, dtype=F64) for name in answers}

    with pytest.raises(UserError, match=message):
        TraceMax_ELBO().loss(joint_model({"maximize": solver}), no_guide)


def test_terms_at_held_values_see_new_parameters_only():
    model, guide = auxiliary_pair(torch.randn(4, dtype=F64))
    elbo = TraceMax_ELBO(max_plate_nesting=1)
    terms, held = elbo.hold(model, guide)
    again = elbo.terms_at(held, model, guide)
    assert all(torch.allclose(terms[name], again[name]) for name in terms)
    pyro.get_param_store()["slope"] = torch.tensor(9.0, dtype=F64)
    moved = elbo.terms_at(held, model, guide)
    assert moved["likelihood"] > terms["likelihood"]
    assert torch.allclose(moved["prior"], terms["prior"])


def test_a_network_learns_from_its_own_loss_and_from_nothing_else():
    weight = torch.tensor(0.2, dtype=F64, requires_grad=True)
    seen = []

    def solve(values):
        return torch.full((3,), 0.6, dtype=F64)

    def miss(values, answer):
        seen.append((values, answer))
        return (weight - answer).square()

    def program(shift, observed):
        with pyro.plate("data", 3), poutine.scale(scale=2.0):
            prior = Normal(torch.zeros((), dtype=F64), 1.0)
            learned = {"maximize": solve, "maximize_loss": miss}
            c = pyro.sample("c", prior, infer=learned)
            return pyro.sample("z", Normal(c + shift, 1.0), obs=observed)

    def model():
        return program(0.0, torch.ones(3, dtype=F64))

    shift = torch.tensor(0.1, dtype=F64, requires_grad=True)
    pairs = {
        "model": (model, no_guide),
        "guide": (unit, lambda: program(shift, None)),
    }
    for model_or_guide in pairs.values():
        weight.grad = None
        terms, held = TraceMax_ELBO(max_plate_nesting=1).hold(*model_or_guide)
        assert terms["maximiser"].item() == pytest.approx(2 * 3 * 0.16)
        sum(terms.values()).backward()
        # d/dw of (w - 0.6)^2, at each of three data points that count twice.
        assert weight.grad.item() == pytest.approx(-2 * 3 * 0.8)
        assert torch.equal(seen[-1][1], torch.full((3,), 0.6, dtype=F64))
        assert not any(value.requires_grad for value in seen[-1][0].values())
        again = TraceMax_ELBO(max_plate_nesting=1).terms_at(held, *model_or_guide)
        assert "maximiser" not in again


def test_what_a_network_learns_from_is_no_part_of_the_ratio():
    x = torch.randn(4, dtype=F64)
    model, guide = auxiliary_pair(x)

    def other():
        with pyro.plate("data", len(x), dim=-1):
            miss = {"maximize": lambda v: v["z"], "maximize_loss": lambda v, c: c * 0 + 7.0}
            c = pyro.sample("c", Laplace(x.new_zeros(()), 1.0), infer=miss)
            z = pyro.sample("z", Normal(c, 0.4))
            pyro.sample("x", Normal(1.5 * z, 0.5), obs=x)

    ratios, losses = [], []
    for program in (model, other):
        elbo = TraceMax_ELBO(max_plate_nesting=1, num_particles=2, vectorize_particles=True)
        pyro.set_rng_seed(2)
        ratios.append(elbo.log_ratio(program, guide))
        pyro.set_rng_seed(2)
        losses.append(elbo.loss(program, guide))
    assert torch.allclose(ratios[0], ratios[1])
    assert losses[1] - losses[0] == pytest.approx(4 * 7.0)


def unit():
    with pyro.plate("data", 3):
        pyro.sample("z", Normal(torch.ones((), dtype=F64), 1.0))


def test_the_generic_maximiser_respects_the_support():
    def model():
        rate = pyro.sample(
            "rate", Gamma(torch.tensor(3.0, dtype=F64), 2.0), infer={"maximize": None}
        )
        pyro.sample("x", Normal(0.0, rate), obs=torch.tensor(1.0, dtype=F64))

    grid = torch.linspace(1e-3, 10, 200_001, dtype=F64)
    dense = Gamma(torch.tensor(3.0, dtype=F64), 2.0).log_prob(grid)
    dense = dense + Normal(0.0, grid).log_prob(torch.tensor(1.0, dtype=F64))
    assert -TraceMax_ELBO().loss(model, no_guide) == pytest.approx(dense.max().item(), abs=1e-6)


def model_of_z(solver):
    def model():
        with pyro.plate("data", 3):
            pyro.sample("c", Normal(torch.zeros(()), 1.0), infer={"maximize": solver})
            pyro.sample("z", Normal(torch.zeros(()), 1.0))

    return model


@pytest.mark.parametrize(
    ("model", "z", "message"),
    [
        (model_of_z(lambda v: torch.zeros(3)), None, "the guide has no site 'z' of the model"),
        (model_of_z(lambda v: torch.zeros(3) / 0), Normal, "maximiser of site 'c' is not finite"),
        (
            model_of_z(lambda v: torch.zeros(3)),
            lambda *_: Categorical(torch.ones(2)),
            "site 'z' of the guide is a Categorical without rsample",
        ),
    ],
)
def test_says_what_is_wrong_with_a_program(model, z, message):
    def guide():
        if z is not None:
            with pyro.plate("data", 3):
                pyro.sample("z", z(torch.zeros(()), 1.0))

    with pytest.raises(UserError, match=message):
        TraceMax_ELBO().loss(model, guide)


def test_a_maximiser_of_the_wrong_shape_is_named():
    def model():
        with pyro.plate("data", 3):
            pyro.sample(
                "c",
                Delta(torch.zeros(3, 2), event_dim=1),
                infer={"maximize": lambda v: torch.zeros(3, 5)},
            )

    with pytest.raises(UserError, match=r"must have values of shape \(2,\)"):
        TraceMax_ELBO().loss(model, no_guide)
