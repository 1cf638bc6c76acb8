import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from host_reads import NoHostReads
from pyro import poutine

from pyro_latents.errors import UserError
from pyro_latents.losses.enumeration import TraceEnum_ELBO
from pyro_latents.programs import local_parameters

pytestmark = pytest.mark.usefixtures("float64")
WEIGHTS, LOCS = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([-1.0, 0.0, 2.0])


def model(x):
    with pyro.plate("data", len(x), dim=-1):
        y = pyro.sample("y", dist.Categorical(WEIGHTS.to(x)))
        pyro.sample("x", dist.Normal(LOCS.to(x)[y], 1.0), obs=x)


class Guide(pyro.nn.PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            enumerated = {"enumerate": "parallel"}
            pyro.sample("y", dist.Categorical(logits=self.logits), infer=enumerated)


def value_and_gradient(loss, model, guide, *args):
    guide.zero_grad()
    with local_parameters(guide):
        value = loss(model, guide)(*args)
        value.backward()
    return value.detach(), guide.logits.grad.clone()


def bound(guide, x, of_y=1.0, of_x=1.0):
    """The weighted bound as a sum over the classes."""
    log_q = guide.logits.log_softmax(-1)
    scores = of_x * dist.Normal(LOCS.to(x), 1.0).log_prob(x[:, None])
    return (log_q.exp() * (scores + of_y * (WEIGHTS.to(x).log() - log_q))).sum()


def test_the_module_form_has_the_same_value_with_and_without_a_gradient():
    x = torch.randn(5)
    guide = Guide()
    with local_parameters(guide):
        loss = TraceEnum_ELBO(max_plate_nesting=1)(model, guide)
        with_gradient = loss(x)
        with torch.no_grad():
            without = loss(x)
    torch.testing.assert_close(with_gradient, -bound(guide, x))
    torch.testing.assert_close(without, with_gradient.detach())
    with_gradient.backward()
    assert guide.logits.grad.abs().sum() > 0


def test_it_is_pyro_s_bound_in_every_form():
    x, guide = torch.randn(5), Guide()
    ours, theirs = (
        kind(max_plate_nesting=1) for kind in (TraceEnum_ELBO, pyro.infer.TraceEnum_ELBO)
    )
    value, gradient = value_and_gradient(ours, model, guide, x)
    expected, expected_gradient = value_and_gradient(theirs, model, guide, x)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    with local_parameters(guide):
        assert ours.loss(model, guide, x) == pytest.approx(theirs.loss(model, guide, x))
        guide.zero_grad()
        assert ours.loss_and_grads(model, guide, x) == pytest.approx(expected.item())
    torch.testing.assert_close(guide.logits.grad, expected_gradient)


def nested(parameters, hows):
    """A model and a guide with a site outside of the plate and two within, of which one is drawn.

    What is said of each discrete site is how it is summed; None for a draw, whose gradient is that
    of the score function.
    """
    outer, inner, slope = parameters

    def model(x):
        w = pyro.sample("w", dist.Categorical(torch.tensor([0.4, 0.6])))
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample(
                "y", dist.Categorical(logits=torch.tensor([[0.0, 1, 2], [1, 0, 0]])[w])
            )
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(LOCS.to(x)[y] + w + z, 1.0), obs=x)

    def guide(x):
        infer = [{"enumerate": how} for how in hows]
        w = pyro.sample("w", dist.Categorical(logits=outer), infer=infer[0])
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Categorical(logits=inner[w]), infer=infer[1])
            pyro.sample("z", dist.Normal(slope[w] * x, 1.0))

    return model, guide


WAYS = [
    ("parallel", "parallel"),
    ("sequential", "parallel"),
    (None, "parallel"),
    ("parallel", None),
]


@pytest.mark.parametrize("hows", [*WAYS, (None, None)], ids=str)
def test_every_way_of_summing_is_pyro_s(hows):
    x = torch.randn(4)
    parameters = [torch.randn(shape, requires_grad=True) for shape in ((2,), (2, 3), (2,))]
    model, guide = nested(parameters, hows)
    found = []
    for kind in (TraceEnum_ELBO, pyro.infer.TraceEnum_ELBO):
        torch.manual_seed(0)
        loss = kind(max_plate_nesting=1, strict_enumeration_warning=False, num_particles=2)
        value = loss.differentiable_loss(model, guide, x)
        found.append((value, *torch.autograd.grad(value, parameters)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_is_impossible_costs_nothing():
    x = torch.randn(4)
    parameters = [torch.tensor([0.0, -torch.inf]), torch.randn(2, 3), torch.randn(2)]
    model, guide = nested(parameters, WAYS[0])
    found = []
    for kind in (TraceEnum_ELBO, pyro.infer.TraceEnum_ELBO):
        torch.manual_seed(0)
        found.append(kind(max_plate_nesting=1).loss(model, guide, x))
    assert math.isfinite(found[0])
    assert found[0] == pytest.approx(found[1])


def test_a_step_waits_for_nothing():
    x = torch.randn(5)
    parameters = [torch.randn(shape, requires_grad=True) for shape in ((2,), (2, 3), (2,))]
    programs = nested(parameters, WAYS[0])
    weights = {"y": torch.tensor(0.5)}
    loss = TraceEnum_ELBO(max_plate_nesting=1, weights=weights, gradient_shares=weights)
    with NoHostReads(), pyro.validation_enabled(False):
        loss.differentiable_loss(*programs, x).backward()


@pytest.mark.parametrize("weights", [(0.5, 2.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_weights_are_those_of_the_sites_in_model_and_guide(weights, kind):
    x, guide = torch.randn(5), Guide()
    guide.logits.data = torch.tensor([0.3, -0.2, 0.1])
    loss = TraceEnum_ELBO(
        max_plate_nesting=1, weights={"y": kind(weights[0]), "x": kind(weights[1])}
    )
    value, gradient = value_and_gradient(loss, model, guide, x)
    expected = -bound(guide, x, *weights)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, guide.logits)[0])


def test_a_weight_may_change():
    x, guide, weight = torch.randn(5), Guide(), torch.ones(())
    loss = TraceEnum_ELBO(max_plate_nesting=1, weights={"x": weight})
    for number in (1.0, 0.25):
        weight.fill_(number)
        value, _ = value_and_gradient(loss, model, guide, x)
        torch.testing.assert_close(value, -bound(guide, x, of_x=number).detach())


def test_weights_multiply_scales():
    x, guide = torch.randn(5), Guide()
    loss = TraceEnum_ELBO(max_plate_nesting=1, weights={"y": 0.5, "x": 0.5})
    with local_parameters(guide):
        found = loss.loss(poutine.scale(model, 3.0), poutine.scale(guide, 3.0), x)
    assert found == pytest.approx(-1.5 * bound(guide, x).item())


def only_model(x):
    with pyro.plate("data", len(x), dim=-1):
        y = pyro.sample("y", dist.Categorical(WEIGHTS.to(x)), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(LOCS.to(x)[y], 1.0), obs=x)


def test_what_is_summed_in_the_model_has_one_weight():
    x = torch.randn(5)
    log_joint = dist.Normal(LOCS.to(x), 1.0).log_prob(x[:, None]) + WEIGHTS.to(x).log()
    weight = torch.tensor(0.3)
    loss = TraceEnum_ELBO(max_plate_nesting=1, weights={"y": weight, "x": weight})
    found = loss.loss(only_model, lambda x: None, x)
    assert found == pytest.approx(-0.3 * log_joint.logsumexp(-1).sum().item())
    loss.weights["x"] = 1.0
    with pytest.raises(ValueError, match="common poutine.scale"):
        loss.loss(only_model, lambda x: None, x)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_share_of_the_gradient_reaches_the_logits(share):
    x, guide = torch.randn(5), Guide()
    guide.logits.data = torch.tensor([0.3, -0.2, 0.1])
    whole = value_and_gradient(TraceEnum_ELBO(max_plate_nesting=1), model, guide, x)
    loss = TraceEnum_ELBO(max_plate_nesting=1, gradient_shares={"y": torch.tensor(share)})
    value, gradient = value_and_gradient(loss, model, guide, x)
    torch.testing.assert_close(value, whole[0])
    torch.testing.assert_close(gradient, share * whole[1])


def test_a_share_is_for_categorical_sites():
    def normal(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    loss = TraceEnum_ELBO(
        max_plate_nesting=1, gradient_shares={"z": 0.5}, strict_enumeration_warning=False
    )
    with pytest.raises(UserError, match="'z' of the guide is Normal"):
        loss.loss(normal, normal, torch.zeros(2))


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16, torch.float32])
def test_sites_of_other_number_formats_are_added_in_the_widest(narrow):
    def mixed(x):
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(WEIGHTS.to(narrow).softmax(-1)))
            pyro.sample("x", dist.Normal(LOCS.to(x)[y], 1.0), obs=x)

    x, guide = torch.randn(500), Guide()
    value, gradient = value_and_gradient(TraceEnum_ELBO(max_plate_nesting=1), mixed, guide, x)
    assert value.dtype == torch.float64
    log_q = guide.logits.log_softmax(-1)
    scores = dist.Normal(LOCS.to(x), 1.0).log_prob(x[:, None])
    log_p = WEIGHTS.double().log_softmax(-1)
    expected = -(log_q.exp() * (scores + log_p - log_q)).sum()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-2, atol=0)
    assert gradient.isfinite().all()


def test_sums_are_not_rounded_in_mixed_precision():
    torch.set_default_dtype(torch.float32)
    x, guide = torch.randn(500), Guide()
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = value_and_gradient(TraceEnum_ELBO(max_plate_nesting=1), model, guide, x)
    torch.testing.assert_close(value, -bound(guide, x).detach(), rtol=1e-4, atol=0)
