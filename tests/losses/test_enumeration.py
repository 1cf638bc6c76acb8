import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_latents.losses.enumeration import TraceEnum_ELBO
from pyro_latents.parameters import local_parameters

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


def test_the_module_form_has_the_same_value_with_and_without_a_gradient():
    x = torch.randn(5)
    guide = Guide()
    with local_parameters(guide):
        loss = TraceEnum_ELBO(max_plate_nesting=1)(model, guide)
        with_gradient = loss(x)
        with torch.no_grad():
            without = loss(x)
    q = torch.full((3,), 1 / 3)
    scores = dist.Normal(LOCS.to(x), 1.0).log_prob(x[:, None]) + (WEIGHTS.to(x) / q).log()
    torch.testing.assert_close(with_gradient, -(q * scores).sum())
    torch.testing.assert_close(without, with_gradient.detach())
    with_gradient.backward()
    assert guide.logits.grad.abs().sum() > 0
