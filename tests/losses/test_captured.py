"""A captured loss is the loss: values, gradients and draws, and what cannot be captured."""

import pyro
import pytest
import torch
from pyro.distributions import Bernoulli, Normal
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.utils._pytree import tree_map

from pyro_latents import captured, zoo
from pyro_latents.data.batches import Batches
from pyro_latents.losses import TraceAnalytic_ELBO
from pyro_latents.programs import local_parameters

SMALL = {"networks": "dense", "hidden_dims": (16,)}
RECIPES = {
    "vae-digits": SMALL,
    "vae-digits, flow": {**SMALL, "guide": "flow"},
    "vae-digits, full-rank": {**SMALL, "guide": "full-rank"},
    "vamp-vae-circles": {},
    "triplet-tvae-digits": {},
    "pose-tvae-digits": {},
    "equivae-digits": {},
    "equivae-semi-digits": {},
}


class Model(PyroModule):
    """Programs that note how often they run."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 5))
        self.register_buffer("shift", torch.zeros(()))
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Normal(x.new_zeros(()), 1.0).expand([2]).to_event(1))
            logits = self.decoder(z) + self.shift
            pyro.sample("x", Bernoulli(logits=logits).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(5, 4)

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", Normal(loc, log_scale.exp()).to_event(1))


class Looking(Guide):
    """A guide that looks at a value."""

    def forward(self, x):
        if x.mean() > -1:
            super().forward(x)


pytestmark = pytest.mark.usefixtures("float64")


def value_and_gradient(call, modules, x, seed):
    for parameter in modules.parameters():
        parameter.grad = None
    torch.manual_seed(seed)
    loss = call(*x)
    (loss / 3).backward()
    after = torch.randn(())
    grads = [p.grad.clone() for p in modules.parameters() if p.grad is not None]
    return [loss.detach(), after, *grads]


@pytest.fixture
def programs():
    return Model(), Guide()


def eager(elbo, model, guide):
    def call(*x):
        with local_parameters(model, guide):
            return elbo.differentiable_loss(model, guide, *x)

    return call


def assert_same(elbo, model, guide, batch, step=None):
    step = step or captured(elbo, model, guide)
    modules = nn.ModuleList([model, guide])
    for seed in (1, 1, 2):
        found = value_and_gradient(step, modules, batch, seed)
        expected = value_and_gradient(eager(elbo, model, guide), modules, batch, seed)
        torch.testing.assert_close(found, expected)
    return step


def recipe_and_batch(name, **settings):
    recipe = zoo.recipe(name, **settings)
    batch = Batches(recipe.batches("train"), 12, seed=0).batch(0)
    nn.ModuleList([recipe.model, recipe.guide]).double()
    # A batch may have tuples of tensors in it.
    return recipe, tree_map(lambda x: x.double() if x.is_floating_point() else x, batch)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO, TraceAnalytic_ELBO])
def test_it_is_the_loss_of_programs_that_no_longer_run(elbo, programs):
    model, guide = programs
    step = captured(elbo(), model, guide)
    x = torch.rand(6, 5).round()
    step(x).backward()
    assert step.reason is None
    runs = model.runs
    step(x).backward()
    assert model.runs == runs
    assert_same(elbo(), model, guide, (x,), step)


@pytest.mark.parametrize(("name", "settings"), RECIPES.items(), ids=RECIPES)
def test_every_story_is_captured(name, settings):
    recipe, batch = recipe_and_batch(name.split(",")[0], **settings)
    for phase in recipe.plan.phases.values():
        loss, model, guide = (
            getattr(phase, part) or getattr(recipe, part) for part in ("loss", "model", "guide")
        )
        step = captured(loss, model, guide)
        modules = nn.ModuleList([recipe.model, recipe.guide])
        for seed in (1, 2):
            found = value_and_gradient(step, modules, batch, seed)
            expected = value_and_gradient(eager(loss, model, guide), modules, batch, seed)
            torch.testing.assert_close(found, expected)
        assert step.reason is None


def test_what_changes_is_seen(programs):
    model, guide = programs
    x = torch.rand(6, 5).round()
    step = assert_same(TraceAnalytic_ELBO(), model, guide, (x,))
    with torch.no_grad():
        model.shift.fill_(2.0)
        guide.encoder.weight.mul_(2.0)
    assert_same(TraceAnalytic_ELBO(), model, guide, (x.flip(0),), step)
    # Another shape, another mode and frozen parameters are graphs of their own.
    assert_same(TraceAnalytic_ELBO(), model, guide, (x[:4],), step)
    model.eval()
    assert_same(TraceAnalytic_ELBO(), model, guide, (x,), step)
    guide.requires_grad_(False)
    assert_same(TraceAnalytic_ELBO(), model, guide, (x,), step)
    guide.requires_grad_(True)
    assert_same(TraceAnalytic_ELBO(), model, guide, (x,), step)
    assert step.reason is None


def test_a_weight_that_is_written_to_is_seen():
    recipe, batch = recipe_and_batch("equivae-semi-digits")
    (weight, *_) = recipe.plan.weights
    modules = nn.ModuleList([recipe.model, recipe.guide])
    step = captured(recipe.loss, recipe.model, recipe.guide)
    losses = []
    for value in (1.0, 0.25):
        weight.value.fill_(value)
        found = value_and_gradient(step, modules, batch, 1)
        plain = eager(recipe.loss, recipe.model, recipe.guide)
        torch.testing.assert_close(found, value_and_gradient(plain, modules, batch, 1))
        losses.append(found[0])
    assert losses[0] != losses[1]


def test_a_program_that_looks_at_values_is_run_and_the_reason_told(programs):
    model, guide = programs[0], Looking()
    step = assert_same(TraceAnalytic_ELBO(), model, guide, (torch.rand(6, 5).round(),))
    assert step.reason == "the programs look at the value of a tensor"


def test_a_parameter_of_no_module_is_no_constant(programs):
    model, guide = programs
    weight = nn.Parameter(torch.ones(()))

    def hidden(x):
        with pyro.plate("data", len(x), dim=-1):
            loc, log_scale = (weight * guide.encoder(x)).chunk(2, -1)
            pyro.sample("z", Normal(loc, log_scale.exp()).to_event(1))

    step = captured(TraceAnalytic_ELBO(), model, hidden)
    step(torch.rand(6, 5).round()).backward()
    assert step.reason == "a parameter is in neither module"
    assert weight.grad is not None


def test_without_a_gradient_the_programs_run(programs):
    model, guide = programs
    step = captured(TraceAnalytic_ELBO(), model, guide)
    with torch.no_grad():
        step(torch.rand(6, 5).round())
        step(torch.rand(6, 5).round())
    assert model.runs == 2


def test_functions_are_run():
    step = captured(TraceAnalytic_ELBO(), lambda x: None, lambda x: None)
    with pytest.raises(RuntimeError, match="does not require grad"):
        step(torch.zeros(2)).backward()
    assert step.reason == "neither program is a module with parameters"
