import json

import pytest
import torch

from pyro_latents.reproduce import connor, connor_images
from pyro_latents.reproduce.connor_pictures import bars, orbit
from pyro_latents.reproduce.experiment import Context, experiments, reproduce

NAMES = ("swiss-roll", "circles", "rotated-mnist", "mnist-table", "mnist-paths")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """A few steps on a few points."""
    monkeypatch.setattr(connor, "QUICK_STEPS", 2)
    monkeypatch.setattr(connor, "DRAWS", 20)
    quick = {"limit_train": 200, "steps": 2, "warm_up": 1}
    monkeypatch.setattr(connor_images, "QUICK", quick)
    monkeypatch.setitem(connor_images.TESTED, "quick", 3)
    monkeypatch.setattr(connor_images, "PARTICLES", 2)
    monkeypatch.setattr(connor_images, "TURNED", 10)
    monkeypatch.setattr(connor_images, "CLASSIFIER_STEPS", 2)
    monkeypatch.setattr(connor_images, "ORBIT_STEPS", 9)


def run(name, tmp_path, **options):
    context = Context(**{"budget": "quick", "out": tmp_path, **options})
    reproduce(name, context)
    return json.loads((tmp_path / f"{name}.json").read_text())


def test_every_experiment_is_there():
    assert {f"connor-{name}" for name in NAMES} <= set(experiments())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("connor-circles", None),
        ("connor-mnist-table", "digits"),
        ("connor-mnist-paths", "digits"),
        ("connor-rotated-mnist", "rotated-digits"),
    ],
)
def test_each_writes_its_numbers_and_pictures(name, data, tmp_path):
    written = run(name, tmp_path, data=data)
    assert written["rows"]
    assert all(len(row) == len(written["columns"]) for row in written["rows"])
    for path in written["figures"]:
        assert (tmp_path / path.split("/")[-1]).stat().st_size > 1000


def test_bars_fill_their_panel():
    figure = bars(torch.tensor([0.01, 0.04]), "norms")
    figure.draw_without_rendering()
    assert 0.04 <= figure.axes[0].get_ylim()[1] < 0.05


def test_an_orbit_stays_in_reach_and_passes_its_point():
    turn = torch.tensor([[[0.0, -0.03], [0.03, 0.0]]])
    begin = torch.tensor([1.0, 0.0])
    points = orbit(turn, begin, 1.2)
    assert (points - begin).norm(dim=1).nan_to_num(9.0).min() < 0.05
    assert torch.allclose(points.norm(dim=1), torch.ones(len(points)), atol=1e-4)
