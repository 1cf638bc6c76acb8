"""Pyro's automatic guides on a small data set."""

from functools import partial

import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal, init_to_value

from pyro_latents import SVI
from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.evaluation.evidence import log_evidence, log_evidence_of_batches
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


def test_the_evidence_is_estimated_for_all_data_points_at_once(pca):
    x = pca.model(size=30)
    mean = x @ pca.weight @ pca.posterior_covariance / pca.scale**2
    exact = partial(
        AutoNormal,
        init_loc_fn=init_to_value(values={"z": mean}),
        init_scale=pca.posterior_covariance.sqrt().item(),
    )
    guide = auto_guide(exact, pca.model, x)
    found = log_evidence(pca.model, guide, x, num_particles=1000)
    torch.testing.assert_close(found.log_evidence, pca.log_evidence(x))


def test_a_part_of_its_data_is_refused(pca):
    x = pca.model(size=30)
    guide = auto_guide(AutoNormal, pca.model, x)
    with pytest.raises(UserError, match="AutoNormal fits the batch that it was built with"):
        log_evidence_of_batches(pca.model, guide, Plain(Examples(x)), batch_size=20)


def test_a_guide_that_joins_all_data_points_is_refused(pca):
    x = pca.model(size=30)
    guide = auto_guide(AutoMultivariateNormal, pca.model, x)
    with pytest.raises(UserError, match="latent' lies outside of a data plate of size 30"):
        log_evidence(pca.model, guide, x)
