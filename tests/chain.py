"""A model with two latent sites in a row, guides of it, and the gradients of a loss."""

import pyro
import torch
from pyro.distributions import Normal
from pyro.infer import TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_latents.programs import local_parameters

D = 3


class Model(PyroModule):
    """z ~ N(0, I), w ~ N(z + shift, 1/2), x ~ N(w, 1)."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.full((D,), 0.3))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Normal(0.0, torch.ones(D)).to_event(1))
            w = pyro.sample("w", Normal(z + self.shift, 0.5).to_event(1))
            pyro.sample("x", Normal(w, 1.0).to_event(1), obs=x)


class Guide(PyroModule):
    """z and w, in the order of the model."""

    def __init__(self):
        super().__init__()
        self.z = nn.Linear(D, D)
        self.w = nn.Linear(D, D)
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Normal(self.z(x), self.scale).to_event(1))
            pyro.sample("w", Normal(self.w(x), self.scale).to_event(1))


class BackwardGuide(Guide):
    """w first, then z given it, as in a hierarchical guide."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            w = pyro.sample("w", Normal(self.w(x), self.scale).to_event(1))
            pyro.sample("z", Normal(self.z(w), self.scale).to_event(1))


class MeanField(TraceMeanField_ELBO):
    """Pyro's objective in the module form, which it has for its compiled variant only."""

    def differentiable_loss(self, model, guide, *args):
        traces = self._get_traces(model, guide, args, {})
        return sum(self._differentiable_loss_particle(*t)[1] for t in traces) / self.num_particles


def loss_and_gradients(loss, model, guide, *args, seed=1):
    model.zero_grad(), guide.zero_grad()
    torch.manual_seed(seed)
    with local_parameters(model, guide):
        value = loss(model, guide)(*args)
        value.backward()
    gradients = [p.grad for m in (model, guide) for p in m.parameters()]
    return value.detach(), [torch.zeros(()) if g is None else g for g in gradients]
