"""Pictures say what there is to see, also where a statistic fails altogether."""

import pytest
import torch
from matplotlib.patches import Rectangle

from pyro_latents.checks.arviz_io import is_data_tree, to_arviz
from pyro_latents.checks.figures import reliability_curve, u_values
from pyro_latents.checks.pixels import Reliability
from pyro_latents.checks.predictive import Replicates
from pyro_latents.plots import PALE, half_rows

DRAWS, POINTS = 30, 20


@pytest.mark.skipif(is_data_tree(), reason="ArviZ 1 draws differences, which are never blank")
@pytest.mark.parametrize(("shift", "side"), [(-9.0, "below"), (9.0, "above")])
def test_the_panel_of_points_that_are_all_outside_is_not_blank(shift, side):
    observed = {"fair": torch.randn(POINTS), "wrong": torch.randn(POINTS) + shift}
    replicated = {name: torch.randn(DRAWS, POINTS) for name in observed}
    latents = {"z": torch.randn(DRAWS, POINTS, 2)}
    figure = u_values(to_arviz(Replicates(observed, replicated, latents)))
    fair, wrong = figure.axes[:2]
    assert f"all 20 points are {side}" in "".join(text.get_text() for text in wrong.texts)
    bars = [[p for p in axis.patches if isinstance(p, Rectangle)] for axis in (fair, wrong)]
    assert len(bars[1]) == len(bars[0]) + 1
    bar = bars[1][-1]
    assert bar.get_x() + bar.get_width() / 2 == pytest.approx(float(shift > 0))
    assert not fair.texts


def test_half_images_have_a_seam_and_the_half_that_was_given():
    observed, replicate = torch.rand(3, 1, 4, 6), torch.rand(3, 1, 4, 6)
    figure = half_rows({"observed": observed, "replicate": replicate}, 2, "observed")
    for axis in figure.axes:
        assert [line.get_xdata()[0] for line in axis.lines] == [1.5, 7.5, 13.5]
    whole, drawn = (1 - torch.as_tensor(axis.images[0].get_array()) for axis in figure.axes)
    first = observed[0, 0]
    assert torch.allclose(whole[:, :6], first)
    assert torch.allclose(drawn[:, :2], PALE * first[:, :2], atol=1e-6)
    assert torch.allclose(drawn[:, 2:6], replicate[0, 0, :, 2:], atol=1e-6)


def test_the_calibration_error_is_in_per_cent():
    count = torch.ones(3)
    found = Reliability(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.1, 0.5, 0.6]), count)
    assert reliability_curve(found).axes[0].get_title() == "calibration error 10.00 %"
