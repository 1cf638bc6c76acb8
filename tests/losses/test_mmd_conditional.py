"""Sites with parents: compared within each data point, exactly for normals, by draws otherwise."""

from math import sqrt

import pyro
import pytest
import torch
from host_reads import NoHostReads
from pyro.distributions import Delta, Normal, TransformedDistribution
from pyro.distributions.transforms import AffineTransform

from pyro_latents.losses import TraceMMD_ELBO
from pyro_latents.losses.discrepancies import moments
from pyro_latents.losses.kernels import RBF, InverseMultiquadric, normal_mmd_squared

pytestmark = pytest.mark.usefixtures("float64")

D, N = 3, 4


def unnamed(loc, scale):
    """A normal in whose class no closed form is known."""
    return TransformedDistribution(Normal(loc, scale), [AffineTransform(0.0, 1.0)])


class Chain:
    """z ~ N(0, I), w ~ N(2 z, .3) in the model; both normal in the guide."""

    def __init__(self, family=Normal):
        torch.manual_seed(0)
        self.family = family
        self.z, self.w = torch.randn(2, N, D)
        self.w_scale = torch.full((D,), 0.6)

    def model(self):
        with pyro.plate("data", N):
            z = pyro.sample("z", Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("w", self.family(2 * z, torch.full((D,), 0.3)).to_event(1))

    def guide(self):
        with pyro.plate("data", N):
            pyro.sample("w", self.family(self.w, self.w_scale).to_event(1))
            pyro.sample("z", Delta(self.z, event_dim=1))

    def learnt(self):
        return [part.requires_grad_() for part in (self.w, self.w_scale, self.z)]


def test_closed_form_of_one_dimension_is_the_double_integral():
    q, p = (torch.tensor([[0.5]]), torch.tensor([[0.4]])), (torch.zeros(1, 1), torch.ones(1, 1))
    grid = torch.linspace(-8, 8, 801)
    gram = RBF()((grid[:, None] - grid).square(), 1)
    a, b = (Normal(m[0], s[0]).log_prob(grid).exp() * 0.02 for m, s in (q, p))
    expected = (a - b) @ gram @ (a - b)
    torch.testing.assert_close(normal_mmd_squared(q, p, RBF())[0], expected)


def test_points_are_normals_of_no_width():
    q, p = torch.randn(2, 5, D)
    none = torch.zeros(5, D)
    gap = (q - p).square().sum(-1)
    found = normal_mmd_squared((q, none), (p, none), RBF((1.0,)))
    torch.testing.assert_close(found, 2 - 2 * RBF((1.0,))(gap, D))


def test_draws_and_closed_form_agree_in_value_and_gradient():
    kernel = RBF((0.5, 2.0))
    exact = Chain()
    value = TraceMMD_ELBO({"w": 2.0, "z": 0.0}, kernel=kernel)
    truth = value.differentiable_loss(exact.model, exact.guide)
    assert not truth.requires_grad
    learnt = exact.learnt()
    truth = value.differentiable_loss(exact.model, exact.guide)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(truth, learnt)])
    sampled = Chain(unnamed)
    learnt = sampled.learnt()
    values, gradients = [], []
    for _ in range(200):
        loss = value.differentiable_loss(sampled.model, sampled.guide)
        values.append(loss.detach()[None])
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, learnt)]))
    for draws, expected in ((values, truth.detach()[None]), (gradients, gradient)):
        draws = torch.stack(draws)
        error = draws.std(0) / sqrt(len(draws))
        assert ((draws.mean(0) - expected).abs() < 4 * error).all()
        assert (error < 0.1 * expected.abs().max()).all()


def test_the_closed_form_has_no_noise_and_is_zero_where_the_two_agree():
    chain = Chain()
    loss = TraceMMD_ELBO({"w": 1.0, "z": 0.0})
    assert loss.loss(chain.model, chain.guide) == loss.loss(chain.model, chain.guide) > 0
    chain.w, chain.w_scale = 2 * chain.z, torch.full((D,), 0.3)
    assert loss.loss(chain.model, chain.guide) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("particles", [{"vectorize_particles": True}, {}])
def test_particles_are_averaged(particles):
    chain = Chain()
    one = TraceMMD_ELBO({"w": 1.0, "z": 0.0}).loss(chain.model, chain.guide)
    three = TraceMMD_ELBO({"w": 1.0, "z": 0.0}, num_particles=3, **particles)
    assert three.loss(chain.model, chain.guide) == pytest.approx(one, rel=1e-12)


def test_one_data_point_is_enough():
    def guide():
        with pyro.plate("data", 1):
            pyro.sample("z", Normal(0.0, 1.0))
            pyro.sample("w", Normal(5.0, 1.0))

    def model():
        with pyro.plate("data", 1):
            pyro.sample("w", Normal(pyro.sample("z", Normal(0.0, 1.0)), 1.0))

    assert TraceMMD_ELBO({"w": 1.0}).loss(model, guide) > 0


def mirrored(sign):
    """z ~ N(0, 1) and w ~ N(z, .1); the guide of data x has z near x and w near sign x."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(0.0, 1.0))
            pyro.sample("w", Normal(z, 0.1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Normal(x, 0.1))
            pyro.sample("w", Normal(sign * x, 0.1))

    return model, guide


@pytest.mark.parametrize("compare", ["conditional", "joint", "marginal"])
def test_wrong_parents_are_seen_where_the_aggregates_are_equal(compare):
    torch.manual_seed(0)
    x = torch.randn(200)
    x = torch.cat([x, -x])
    loss = TraceMMD_ELBO({"w": 1.0, "z": 0.0}, compare=compare)
    right, wrong = (loss.loss(*mirrored(sign), x) / len(x) for sign in (1.0, -1.0))
    assert abs(right) < 0.03
    assert abs(wrong) < 0.03 if compare == "marginal" else wrong > 0.1


@pytest.mark.parametrize("compare", ["conditional", "marginal"])
def test_wrong_parents_are_unlearned(compare):
    torch.manual_seed(0)
    sign = torch.tensor(-0.9, requires_grad=True)
    model, guide = mirrored(sign)
    loss = TraceMMD_ELBO({"w": 1.0, "z": 0.0}, compare=compare)
    optimizer = torch.optim.Adam([sign], lr=0.05)
    for _ in range(120):
        optimizer.zero_grad()
        (loss.differentiable_loss(model, guide, torch.randn(64)) / 64).backward()
        optimizer.step()
    assert sign.item() == pytest.approx(1.0 if compare == "conditional" else -1.0, abs=0.15)


def test_a_site_is_compared_by_what_it_depends_on_and_not_by_its_place():
    def model():
        with pyro.plate("data", N):
            z = pyro.sample("z", Normal(0.0, 1.0))
            pyro.sample("u", Normal(0.0, 1.0))
            point = pyro.sample("p", Delta(2 * z))
            w = pyro.sample("w", Normal(z + point, 1.0))
            pyro.sample("v", Normal(w, z.exp()))

    loss = TraceMMD_ELBO(dict.fromkeys("zupwv", 1.0))
    state = torch.get_rng_state()
    assert loss.parents(model) == {"z": [], "u": [], "p": ["z"], "w": ["z"], "v": ["z", "w"]}
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_of_the_global_store_are_no_parents():
    def model():
        scale = pyro.param("scale", torch.ones(()))
        with pyro.plate("data", N):
            z = pyro.sample("z", Normal(0.0, scale))
            x = pyro.sample("x", Normal(z, 1.0), obs=torch.zeros(N))
            pyro.sample("w", Normal(x, scale))

    pyro.clear_param_store()
    assert TraceMMD_ELBO({"w": 1.0, "z": 1.0}).parents(model) == {"z": [], "w": ["x"]}
    pyro.clear_param_store()


def test_another_model_has_parents_of_its_own():
    loss = TraceMMD_ELBO({"w": 1.0, "z": 0.0})
    chain = Chain()

    def apart():
        with pyro.plate("data", N):
            for name in "zw":
                pyro.sample(name, Normal(torch.zeros(D), 1.0).to_event(1))

    assert loss.parents(chain.model)["w"] == ["z"]
    assert loss.parents(apart)["w"] == []
    assert loss.parents(chain.model)["w"] == ["z"]


def test_moments_are_those_of_normals_and_points_alone():
    loc, scale = torch.randn(5, D), torch.rand(5, D)
    for normal in (Normal(loc, scale).to_event(1), Normal(loc, scale).to_event(1).mask(True)):
        found = moments(normal)
        torch.testing.assert_close(found, (loc, scale))
    assert moments(Normal(loc, 1.0))[0].shape == (5, D, 1)
    assert moments(Delta(loc, event_dim=1))[1].abs().max() == 0
    assert moments(unnamed(loc, scale)) is None


@pytest.mark.parametrize(
    ("family", "kernel"), [(Normal, None), (Normal, InverseMultiquadric()), (unnamed, None)]
)
def test_a_step_reads_no_value_of_the_device(family, kernel):
    chain = Chain(family)
    loss = TraceMMD_ELBO({"w": 1.0, "z": 1.0}, kernel=kernel, max_plate_nesting=1)
    with pyro.validation_enabled(False), NoHostReads():
        loss.differentiable_loss(chain.model, chain.guide)
