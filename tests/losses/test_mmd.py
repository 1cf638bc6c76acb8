from math import sqrt

import pyro
import pytest
import torch
from chain import D, Guide, Model
from pyro import poutine
from pyro.distributions import Bernoulli, Delta, MixtureSameFamily, Normal
from pyro.infer import SVI

from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.losses.kernels import RBF
from pyro_latents.programs import local_parameters

pytestmark = pytest.mark.usefixtures("float64")


def normal_mmd(m, s, m0, s0, length, dim):
    """Squared MMD between N(m, s^2 I) and N(m0, s0^2 I) under exp(-d^2 / 2 length^2)."""

    def k(gap, variance):
        total = length**2 + variance
        return (length**2 / total) ** (dim / 2) * torch.exp(-gap.square().sum() / (2 * total))

    gap = m - m0
    return k(0 * gap, 2 * s**2) + k(0 * gap, 2 * s0**2) - 2 * k(gap, s**2 + s0**2)


def gaussians(loc, scale, size):
    def model():
        with pyro.plate("data", size):
            pyro.sample("z", Normal(torch.zeros(D), 1.0).to_event(1))

    def guide():
        with pyro.plate("data", size):
            pyro.sample("z", Normal(loc, scale).to_event(1))

    return model, guide


@pytest.mark.parametrize("particles", [1, 2])
def test_value_and_gradient_are_the_closed_form_of_two_gaussians(particles):
    loc = torch.tensor([0.8, -0.5, 0.2], requires_grad=True)
    scale = torch.tensor(0.6, requires_grad=True)
    size, length, weight = 150, 1.5, 2.0
    exact = normal_mmd(loc, scale, torch.zeros(D), torch.ones(()), length, D)
    exact_gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(exact, [loc, scale])])
    loss = TraceMMD_ELBO(
        mmd_scale={"z": weight},
        kernel=RBF((1.0,), length**2),
        num_particles=particles,
        vectorize_particles=True,
    )
    model, guide = gaussians(loc, scale, size)
    values, gradients = [], []
    for _ in range(60):
        value = loss.differentiable_loss(model, guide)
        values.append(value.detach() / (size * weight))
        gradient = torch.autograd.grad(value, [loc, scale])
        gradients.append(torch.cat([g.reshape(-1) for g in gradient]) / (size * weight))
    for draws, truth in ((values, exact.detach()[None]), (gradients, exact_gradient)):
        draws = torch.stack(draws).reshape(60, -1)
        error = draws.std(0) / sqrt(60)
        assert ((draws.mean(0) - truth).abs() < 4 * error).all()
        assert (error < 0.05 * truth.abs().max()).all()


def test_it_is_zero_in_expectation_for_equal_distributions():
    loss = TraceMMD_ELBO(mmd_scale={"z": 1.0})
    model, guide = gaussians(torch.zeros(D), 1.0, 8)
    draws = torch.stack([loss.differentiable_loss(model, guide) for _ in range(700)])
    assert draws.mean().abs() < 3 * draws.std() / sqrt(len(draws))
    assert (draws < 0).any()


def test_it_is_zero_in_expectation_where_draws_depend_on_the_guides_values():
    # w copies z and the model draws w around z: the two samples are equal in law, not independent.
    def model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", Normal(0.0, 1.0))
            pyro.sample("w", Normal(z, 0.1))

    def guide():
        with pyro.plate("data", 4):
            w = pyro.sample("w", Normal(0.0, sqrt(1.01)))
            pyro.sample("z", Normal(w / 1.01, 0.1 / sqrt(1.01)))

    loss = TraceMMD_ELBO({"w": 1.0, "z": 0.0}, compare="marginal", kernel=RBF((0.1,)))
    draws = torch.stack([loss.differentiable_loss(model, guide) for _ in range(700)])
    assert draws.mean().abs() < 3 * draws.std() / sqrt(len(draws))


def test_particles_of_one_data_point_are_no_pair():
    # Every posterior is a point, the aggregate is the prior: pairs of particles would show a gap.
    def model():
        with pyro.plate("data", 4):
            pyro.sample("z", Normal(0.0, 1.0))

    def guide(x):
        with pyro.plate("data", 4):
            pyro.sample("z", Normal(x, 1e-6))

    loss = TraceMMD_ELBO({"z": 1.0}, num_particles=5, vectorize_particles=True)
    draws = torch.stack(
        [loss.differentiable_loss(lambda x: model(), guide, torch.randn(4)) for _ in range(600)]
    )
    assert draws.mean().abs() < 3 * draws.std() / sqrt(len(draws))


def test_the_second_sample_is_drawn_given_the_guides_parents():
    def model():
        with pyro.plate("data", 400):
            z = pyro.sample("z", Normal(0.0, 1.0))
            pyro.sample("w", Normal(z + 50.0, 0.1))

    def guide(parent):
        with pyro.plate("data", 400):
            pyro.sample("z", Normal(parent, 0.1))
            pyro.sample("w", Normal(0.0, sqrt(0.02)))

    loss = TraceMMD_ELBO({"z": 0.0, "w": 1.0}, compare="marginal", kernel=RBF((1.0,)))
    near = loss.loss(lambda parent: model(), guide, torch.tensor(-50.0))
    far = loss.loss(lambda parent: model(), guide, torch.tensor(0.0))
    assert abs(near) < 0.01 * far


def test_other_sites_keep_their_kl():
    model, guide, x = Model(), Guide(), torch.randn(5, D)
    with local_parameters(model, guide):
        torch.manual_seed(1)
        terms = TraceMMD_ELBO({"w": 1.0}).terms(model, guide, x)
        torch.manual_seed(1)
        kl = TraceMMD_ELBO({}).terms(model, guide, x)
    assert set(terms) == {"x", "kl_z", "mmd_w"}
    torch.testing.assert_close(terms["kl_z"], kl["kl_z"])
    torch.testing.assert_close(terms["x"], kl["x"])


def test_a_weight_of_zero_leaves_the_site_without_a_divergence():
    model, guide, x = Model(), Guide(), torch.randn(5, D)
    with local_parameters(model, guide):
        assert set(TraceMMD_ELBO({"w": 0.0}).terms(model, guide, x)) == {"x", "kl_z"}


def test_svi_step_evaluate_loss_and_module_form_agree():
    model, guide, x = Model(), Guide(), torch.randn(6, D)
    # Without the nesting the first call would draw once more, to guess it.
    loss = TraceMMD_ELBO(
        {"z": 2.0, "w": 3.0}, num_particles=2, vectorize_particles=True, max_plate_nesting=1
    )
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.0}), loss)
    values = []
    for form in (svi.step, svi.evaluate_loss, loss(model, guide)):
        torch.manual_seed(3)
        values.append(float(torch.as_tensor(form(x)).detach()))
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("unbiased", [True, False])
def test_particles_pool_alike_vectorised_and_in_a_loop(unbiased):
    model, x = Model(), torch.randn(16, D)

    def guide(x):  # without randomness, so that both ways draw the same values
        with pyro.plate("data", 16):
            pyro.sample("z", Delta(x, event_dim=1))
            pyro.sample("w", Delta(2 * x, event_dim=1))

    values = {}
    for vectorize in (True, False):
        loss = TraceMMD_ELBO(
            {"z": 0.0, "w": 1.0},
            compare="marginal",
            unbiased=unbiased,
            num_particles=3,
            vectorize_particles=vectorize,
        )
        torch.manual_seed(2)
        with local_parameters(model):
            values[vectorize] = loss.loss(model, guide, x)
    assert values[True] == pytest.approx(values[False], rel=1e-12)


@pytest.mark.parametrize("vectorize", [True, False])
def test_without_a_plate_particles_are_the_sample(vectorize):
    def model():
        pyro.sample("z", Normal(torch.zeros(D), 1.0).to_event(1))

    def guide():
        pyro.sample("z", Normal(torch.full((D,), 0.8), 1.0).to_event(1))

    loss = TraceMMD_ELBO(
        {"z": 1.0}, kernel=RBF((1.0,), 2.0), num_particles=400, vectorize_particles=vectorize
    )
    exact = normal_mmd(torch.full((D,), 0.8), 1.0, torch.zeros(D), 1.0, sqrt(2.0), D)
    assert loss.loss(model, guide) == pytest.approx(float(exact), rel=0.35)


def with_scale(factor):
    return (
        lambda x: poutine.scale(Model.forward, factor)(MODEL, x),
        lambda x: poutine.scale(Guide.forward, factor)(GUIDE, x),
    )


MODEL, GUIDE = Model(), Guide()


def test_a_scale_multiplies_the_term():
    x = torch.randn(5, D, dtype=torch.float64)
    MODEL.double(), GUIDE.double()
    values = []
    for factor in (1.0, 10.0, torch.full((5,), 10.0)):
        torch.manual_seed(0)
        with local_parameters(MODEL, GUIDE):
            terms = TraceMMD_ELBO({"z": 1.0}).terms(*with_scale(factor), x)
        values.append(torch.stack([terms["x"], terms["kl_w"], terms["mmd_z"]]).detach())
    torch.testing.assert_close(values[1], 10 * values[0])
    torch.testing.assert_close(values[2], 10 * values[0])


def test_a_subsampled_plate_scales_to_the_whole_data():
    def model(size):
        with pyro.plate("data", size, subsample_size=5):
            pyro.sample("z", Normal(torch.zeros(D), 1.0).to_event(1))

    def guide(size):
        with pyro.plate("data", size, subsample_size=5):
            pyro.sample("z", Delta(torch.arange(5.0 * D).reshape(5, D), event_dim=1))

    values = []
    for size in (5, 50):
        torch.manual_seed(0)
        torch.randperm(5)
        loss = TraceMMD_ELBO({"z": 1.0}, kernel=RBF((1e-3,)))  # k = 0 between all but equals
        values.append(loss.loss(model, guide, size))
    assert values[1] == pytest.approx(10 * values[0], abs=1e-6)


@pytest.mark.parametrize("how", ["poutine", "distribution"])
def test_masked_data_points_are_left_out(how):
    x = torch.randn(6, D)
    mask = torch.tensor([True, True, False, True, False, True])
    values = torch.where(mask[:, None], x, torch.nan)

    def model():
        with pyro.plate("data", 6), poutine.mask(mask=mask if how == "poutine" else True):
            pyro.sample("z", Delta(torch.zeros(6, D), event_dim=1))

    def guide(values):
        q = Delta(values, event_dim=1, validate_args=False)
        with pyro.plate("data", 6), poutine.mask(mask=mask if how == "poutine" else True):
            pyro.sample("z", q if how == "poutine" else q.mask(mask))

    def kept_model():
        with pyro.plate("data", 4):
            pyro.sample("z", Delta(torch.zeros(4, D), event_dim=1))

    def kept_guide(x):
        with pyro.plate("data", 4):
            pyro.sample("z", Delta(x, event_dim=1))

    loss = TraceMMD_ELBO({"z": 1.0})
    with pyro.validation_enabled(False):
        masked = loss.loss(lambda v: model(), guide, values)
    assert masked == pytest.approx(loss.loss(lambda v: kept_model(), kept_guide, x[mask]))


def test_a_site_that_is_masked_altogether_adds_nothing():
    def program(loc):
        with pyro.plate("data", 3), poutine.mask(mask=False):
            pyro.sample("z", Normal(loc, 1.0))

    loss = TraceMMD_ELBO({"z": 1.0})
    assert loss.loss(lambda: program(0.0), lambda: program(5.0)) == 0.0


def test_a_prior_without_reparameterised_draws_is_fine_if_nothing_in_it_is_learnt():
    mixture = MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)), Normal(torch.tensor([-3.0, 3.0]), 1.0)
    )

    def model():
        with pyro.plate("data", 10):
            pyro.sample("z", mixture)

    def guide():
        with pyro.plate("data", 10):
            pyro.sample("z", Normal(torch.zeros(()).requires_grad_(), 1.0))

    assert TraceMMD_ELBO({"z": 1.0}).differentiable_loss(model, guide).requires_grad


def toy(q, p=None, size=4):
    def model():
        with pyro.plate("data", size):
            pyro.sample("z", p or Normal(0.0, 1.0))
            pyro.sample("x", Normal(0.0, 1.0), obs=torch.zeros(size))

    def guide():
        with pyro.plate("data", size):
            if q is not None:
                pyro.sample("z", q)

    return model, guide


FAR = torch.tensor(1e200, dtype=torch.float64)
LEARNT = torch.zeros(1).requires_grad_()
MISTAKES = {
    "unknown": ({"y": 1.0}, {}, toy(Normal(0.0, 1.0)), "site 'y', which is not in the model"),
    "observed": ({"x": 1.0}, {}, toy(Normal(0.0, 1.0)), "site 'x', which is observed"),
    "guide": (
        {"z": 1.0},
        {},
        toy(Bernoulli(0.5), Bernoulli(0.3)),
        "reparameterised distribution at site 'z' of the guide; got Bernoulli",
    ),
    "kl": ({}, {}, toy(Bernoulli(0.5)), "reparameterised distribution at site 'z' of the guide"),
    "model": (
        {"z": 1.0},
        {},
        toy(Normal(0.5, 0.1), Bernoulli(logits=LEARNT, validate_args=False)),
        "reparameterised distribution at site 'z' of the model; got Bernoulli",
    ),
    "one": ({"z": 1.0}, {}, toy(Normal(0.0, 1.0), size=1), "two data points or more at site 'z'"),
    "infinite": (
        {"z": 1.0},
        {},
        toy(Delta(torch.tensor(1e200)), size=2),
        "not finite at site 'z'",
    ),
    "source": ({}, {"copies": {"z": "x"}}, toy(Normal(0.0, 1.0)), "site 'x', which is observed"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    mmd_scale, options, (model, guide), message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        TraceMMD_ELBO(mmd_scale, **options).differentiable_loss(model, guide)


def test_rejects_a_negative_weight():
    with pytest.raises(ValueError, match="weights >= 0; got z: -1"):
        TraceMMD_ELBO({"z": -1.0})


def test_rejects_a_copy_that_has_a_discrepancy():
    with pytest.raises(ValueError, match="site 'z' has an MMD; take it out of copies"):
        TraceMMD_ELBO({"z": 1.0}, copies={"z": "w"})


def test_rejects_a_comparison_that_is_none():
    with pytest.raises(ValueError, match="'conditionl': did you mean conditional"):
        TraceMMD_ELBO({"z": 1.0}, compare="conditionl")


def test_a_batch_of_one_has_a_biased_estimate():
    model, guide = toy(Normal(0.0, 1.0), size=1)
    assert TraceMMD_ELBO({"z": 1.0}, unbiased=False).loss(model, guide) > 0
