"""Ranks of the truth are uniform under the exact posterior, and under no other guide."""

import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import LinearGaussian
from pyro.distributions import MultivariateNormal, Normal

from pyro_latents.checks.arviz_io import is_data_tree
from pyro_latents.data.batches import Plain
from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.evaluation.active_units import active_units
from pyro_latents.evaluation.calibration import (
    band,
    calibrate,
    kolmogorov_band,
    p_values,
    symmetry_p_values,
)

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


def shifted(pca, by):
    def guide(x, size=1):
        loc = x @ pca.weight @ pca.posterior_covariance / pca.scale**2
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", MultivariateNormal(loc + by, pca.posterior_covariance))

    return guide


def test_a_wrong_width_is_symmetric_and_a_wrong_centre_is_not(pca):
    x, p = torch.zeros(1000, 5), {}
    off = shifted(pca, 0.3 * pca.posterior_covariance.diagonal().sqrt())
    guides = {"exact": pca.exact_guide, "narrow": pca.narrow_guide, "off": off}
    for name, guide in guides.items():
        p[name] = symmetry_p_values(calibrate(pca.model, guide, x))["z"]
    assert p["exact"] > LEVEL
    assert p["narrow"] > LEVEL
    assert p["off"] < 1e-6


def test_p_values_of_symmetric_ranks_are_as_often_small_as_they_say():
    # Ranks of a guide that is too narrow: symmetric, and not uniform.
    ranks = torch.distributions.Beta(0.5, 0.5).sample((400, 2000))
    p = torch.tensor([symmetry_p_values({"z": r[:, None]})["z"] for r in ranks.T])
    for level in (0.01, 0.05, 0.2):
        error = (level * (1 - level) / len(p)) ** 0.5
        # The walk has steps, which its limit has not: a little more seldom.
        assert level / 1.5 - 3 * error < (p <= level).double().mean() < level + 3 * error


def test_it_is_the_law_of_the_largest_distance_from_zero_of_brownian_motion():
    # 2.2414 and 2.8070 are exceeded in 5 and 1 % of all cases.
    for steps, level in ((2.2414, 0.05), (2.8070, 0.01)):
        n = 250_000
        up = round(steps * n**0.5)
        after = torch.tensor([-1.0, 1.0]).repeat((n - up) // 2 + 1)
        signs = torch.cat([torch.ones(up), after])[:n]
        # The largest ranks come first: their signs are the walk.
        away = torch.linspace(0.49, 0.01, n) * signs
        p = symmetry_p_values({"z": (0.5 + away)[:, None]})["z"]
        assert p == pytest.approx(level, rel=0.02)


def inside(bands, ranks):
    """The share of columns whose distribution function is within a band everywhere."""
    points, low, high = bands
    held = points.expand(ranks.shape[1], -1).contiguous()
    ecdf = torch.searchsorted(ranks.T.contiguous().sort().values.contiguous(), held, right=True)
    found = ecdf / len(ranks)
    return ((found >= low) & (found <= high)).all(1).double().mean().item()


def test_uniform_ranks_stay_in_the_band():
    ranks = torch.rand(200, 3000)
    assert inside(kolmogorov_band(200, 0.95), ranks) == pytest.approx(0.95, abs=0.02)
    assert inside(kolmogorov_band(200, 0.99), ranks) == pytest.approx(0.99, abs=0.01)


def test_the_band_of_arviz_stats_is_as_wide_as_it_says_too():
    pytest.importorskip("arviz_stats")
    ranks = torch.rand(200, 3000)
    found = band(200, 1)
    assert inside(found, ranks) == pytest.approx(0.95, abs=0.02)
    # Narrower than ours at the ends, and wider in the middle.
    points, low, high = found
    ours = kolmogorov_band(200, 0.95)
    width, our_width = high - low, ours[2] - ours[1]
    assert width[2] < our_width[2]
    assert width[len(points) // 2] > our_width[len(points) // 2]


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
