"""Pyro's automatic guides on a small data set."""

import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal

from pyro_latents import SVI
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.guides import check_guide
from pyro_latents.guides.auto import auto_guide

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def pca():
    torch.manual_seed(1)
    return LinearGaussian(z_dim=1)


@pytest.mark.parametrize("kind", [AutoNormal, AutoDelta])
def test_a_fresh_guide_loads_a_checkpoint(pca, kind):
    x = pca.model(size=6)
    guide, fresh = (auto_guide(kind, pca.model, x) for _ in range(2))
    state = {name: value + 1 for name, value in guide.state_dict().items()}
    assert state
    fresh.load_state_dict(state)
    check_guide(pca.model, fresh, x)


def test_it_learns_each_data_point_in_our_svi(pca):
    x = pca.model(size=6)
    guide = auto_guide(AutoNormal, pca.model, x)
    svi = SVI(pca.model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO(num_particles=4))
    for _ in range(400):
        svi.step(x)
    found = log_evidence(pca.model, guide, x, num_particles=100)
    torch.testing.assert_close(found.log_evidence, pca.log_evidence(x), atol=0.05, rtol=0)
    assert len(pyro.get_param_store()) == 0
