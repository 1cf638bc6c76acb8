"""Ranks of the truth are uniform under the exact posterior, and under no other guide."""

import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.distributions import Normal

from pyro_latents.checks.arviz_io import is_data_tree
from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.evaluation.active_units import active_units
from pyro_latents.evaluation.calibration import calibrate, p_values

pytestmark = pytest.mark.usefixtures("float64")

LEVEL = 0.01


@pytest.fixture
def pca():
    torch.manual_seed(3)
    return LinearGaussian()


def test_the_exact_posterior_is_calibrated(pca):
    found = calibrate(pca.model, pca.exact_guide, torch.zeros(1000, 5))
    assert found["z"].shape == (1000, 2)
    assert p_values(found)["z"] > LEVEL


@pytest.mark.parametrize("guide", ["narrow_guide", "wide_guide"])
def test_a_wrong_width_is_told(pca, guide):
    found = calibrate(pca.model, getattr(pca, guide), torch.zeros(1000, 5))
    assert p_values(found)["z"] < LEVEL


def arviz_rejects(ranks):
    """Whether the ArviZ that is installed finds that ranks of one coordinate are not uniform."""
    if is_data_tree():
        from arviz_stats.base import array_stats

        if not hasattr(array_stats, "uniformity_test"):
            pytest.skip("ArviZ 1.0 has no test of uniformity; 1.1 has")
        return array_stats.uniformity_test(ranks)[0] < LEVEL
    from arviz.stats.ecdf_utils import compute_ecdf, ecdf_confidence_band

    points = np.linspace(0, 1, 101)[1:-1]
    low, high = ecdf_confidence_band(len(ranks), points, points, prob=1 - LEVEL)
    found = compute_ecdf(np.sort(ranks), points)
    return ((found < low) | (found > high)).any()


@pytest.mark.parametrize("guide", ["exact_guide", "narrow_guide", "wide_guide"])
def test_arviz_says_the_same_of_the_ranks(pca, guide):
    found = calibrate(pca.model, getattr(pca, guide), torch.zeros(1000, 5))
    by_arviz = any(arviz_rejects(ranks) for ranks in found["z"].T.numpy())
    assert by_arviz == (p_values(found)["z"] < LEVEL) == (guide != "exact_guide")


def test_what_the_model_makes_of_an_argument_cannot_be_simulated():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(torch.zeros(()), 1.0))
            pyro.sample("x", Normal(z, 1.0), obs=2 * x)

    with pytest.raises(UserError, match="site 'x' is observed, but is none of the model's"):
        calibrate(model, lambda x: None, torch.zeros(4))


def test_active_units_are_those_that_the_data_move(pca):
    x = pca.model(size=600)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            loc = torch.stack([x[:, 0], 0.05 * x[:, 0], torch.zeros(len(x))], -1)
            pyro.sample("z", Normal(loc, 1.0).to_event(1))

    assert active_units(guide, Plain(Examples(x / x[:, 0].std()))) == {"z": 1}
