from math import sqrt

import pyro
import pytest
import torch
from chain import BackwardGuide, D, Guide, MeanField, Model, loss_and_gradients
from host_reads import NoHostReads
from pyro import poutine
from pyro.distributions import Bernoulli, Delta, MixtureSameFamily, Normal
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_latents.losses import TraceAnalytic_ELBO, TraceMMD_ELBO
from pyro_latents.programs import local_parameters

pytestmark = pytest.mark.usefixtures("float64")


class Sized(PyroModule):
    """A program with two parameters, written as a function of them."""

    def __init__(self, program):
        super().__init__()
        self.program = program
        self.loc = nn.Parameter(torch.tensor(0.4))
        self.scale = nn.Parameter(torch.tensor(0.8))

    def forward(self, x):
        self.program(x, self.loc, self.scale)


def nested_model(x, loc, scale):
    with pyro.plate("groups", x.shape[0], dim=-2):
        a = pyro.sample("a", Normal(loc, 1.0))
        with pyro.plate("data", x.shape[1], subsample_size=3, dim=-1) as index:
            z = pyro.sample("z", Normal(a, scale))
            pyro.sample("x", Normal(z, 1.0), obs=x[:, index])


def nested_guide(x, loc, scale):
    with pyro.plate("groups", x.shape[0], dim=-2):
        a = pyro.sample("a", Normal(loc * x.mean(-1, keepdim=True), scale))
        with pyro.plate("data", x.shape[1], subsample_size=3, dim=-1) as index:
            pyro.sample("z", Normal(a + loc * x[:, index], scale))


def weighed(program):
    def run(x, loc, scale):
        with poutine.scale(scale=3.0), poutine.mask(mask=x[:, 0] > 0):
            program(x, loc, scale)

    return run


def flat_model(x, loc, scale):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", Normal(loc, scale))
        pyro.sample("x", Normal(z[..., None], torch.ones(D)).to_event(1), obs=x)


def flat_guide(x, loc, scale):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", Normal(loc * x[:, 0], scale).mask(x[:, 1] > 0))


def mixed_model(x, loc, scale):
    # There is no closed form of the divergence from a mixture.
    parts = torch.distributions.Categorical(torch.ones(2)), Normal(torch.stack([loc, scale]), 1.0)
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", MixtureSameFamily(*parts))
        pyro.sample("x", Normal(z, 1.0), obs=x[:, 0])
        pyro.factor("penalty", -z.square())


def mixed_guide(x, loc, scale):
    with pyro.plate("data", len(x), dim=-1):
        e = pyro.sample("e", Normal(loc, scale), infer={"is_auxiliary": True})
        pyro.sample("z", Normal(e + loc * x[:, 0], scale))


PROGRAMS = {
    "chain": (Model, Guide),
    "nested, subsampled plates": (lambda: Sized(nested_model), lambda: Sized(nested_guide)),
    "scaled and masked": (
        lambda: Sized(weighed(flat_model)),
        lambda: Sized(weighed(flat_guide)),
    ),
    "no closed form, auxiliary site": (lambda: Sized(mixed_model), lambda: Sized(mixed_guide)),
}
OPTIONS = {
    "one": {},
    "loop": {"num_particles": 3},
    "vectorised": {"num_particles": 3, "vectorize_particles": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", [TraceAnalytic_ELBO, lambda **o: TraceMMD_ELBO({}, **o)])
@pytest.mark.parametrize("programs", PROGRAMS.values(), ids=PROGRAMS)
def test_value_and_gradient_are_those_of_the_mean_field_elbo(programs, kind, options):
    model, guide = (build() for build in programs)
    x = torch.randn(5, D)
    ours = loss_and_gradients(kind(max_plate_nesting=2, **options), model, guide, x)
    theirs = loss_and_gradients(MeanField(max_plate_nesting=2, **options), model, guide, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("programs", PROGRAMS.values(), ids=PROGRAMS)
def test_a_step_reads_no_value_of_the_device(programs):
    model, guide = (build() for build in programs)
    x = torch.randn(5, D)
    loss = TraceAnalytic_ELBO(max_plate_nesting=2, num_particles=2, vectorize_particles=True)
    with pyro.validation_enabled(False), local_parameters(model, guide), NoHostReads():
        loss(model, guide)(x).backward()


def test_the_mean_field_elbo_reads_one():
    model, guide, x = Model(), Guide(), torch.randn(5, D)
    with pyro.validation_enabled(False), local_parameters(model, guide), NoHostReads():
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            MeanField(max_plate_nesting=1)(model, guide)(x)


def test_a_kl_is_sampled_where_a_parent_depends_on_the_site():
    # For the order w, z in the guide the KL of w given one draw of z is not the KL of the joint.
    model, guide, x = Model(), BackwardGuide(), torch.randn(200, D)
    with local_parameters(model, guide), torch.no_grad():
        ours = [TraceAnalytic_ELBO().loss(model, guide, x) for _ in range(100)]
        exact = [Trace_ELBO().loss(model, guide, x) for _ in range(100)]
    ours, exact = torch.tensor(ours), torch.tensor(exact)
    gap = (ours.mean() - exact.mean()).abs()
    assert gap < 4 * (ours.std() + exact.std()) / sqrt(100)


def test_svi_step_evaluate_loss_and_module_form_agree():
    model, guide, x = Model(), Guide(), torch.randn(6, D)
    loss = TraceAnalytic_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.0}), loss)
    values = []
    for form in (svi.step, svi.evaluate_loss, loss(model, guide)):
        torch.manual_seed(3)
        values.append(float(torch.as_tensor(form(x)).detach()))
    assert values[0] == values[1] == values[2]


def test_an_observed_site_of_the_guide_counts_whether_or_not_it_is_reparameterised():
    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Delta(torch.zeros(len(x))))
            pyro.sample("y", Bernoulli(0.25), obs=torch.ones(len(x)), infer={"is_auxiliary": True})

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Normal(0.0, 1.0))

    terms = TraceAnalytic_ELBO(max_plate_nesting=1).terms(model, guide, torch.zeros(4))
    assert set(terms) == {"kl_z", "kl_y"}
    torch.testing.assert_close(terms["kl_y"], 4 * torch.tensor(0.25).log())


def test_a_site_that_has_no_gradient_through_its_draws_is_named():
    def program(x, p=0.5):
        pyro.sample("z", Bernoulli(torch.tensor(p)))

    with pytest.raises(ValueError, match="TraceAnalytic_ELBO needs a reparameterised .* 'z' of"):
        TraceAnalytic_ELBO().loss(program, program, torch.zeros(1))


@pytest.mark.filterwarnings("ignore:Found vars in model but not guide")
def test_a_guide_without_the_site_is_named():
    def model():
        pyro.sample("z", Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="the guide has no site 'z'"):
        TraceAnalytic_ELBO().loss(model, lambda: None)
