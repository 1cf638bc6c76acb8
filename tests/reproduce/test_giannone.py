import json

import pytest
import torch

from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.recipes.triplet_tvae import image_codes
from pyro_latents.reproduce import giannone, giannone_figures, giannone_models
from pyro_latents.reproduce.experiment import Context, experiments, reproduce
from pyro_latents.reproduce.giannone_models import Spec, build, on_frame

NAMES = ("table1", "transfer", "ablation", "figure2", "figure3", "figure4", "likelihood")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """A few steps on a few images, in this process."""
    monkeypatch.setattr(giannone_models, "QUICK_IMAGES", 40)
    monkeypatch.setitem(giannone_models.DURATION, "quick", {"steps": 1})
    monkeypatch.setattr(giannone_models, "PROBE", {"quick": (60, 20)})
    monkeypatch.setattr(
        giannone_models, "in_processes", lambda f, jobs, description: [f(job) for job in jobs]
    )
    monkeypatch.setattr(giannone, "PARTICLES", 3)
    monkeypatch.setattr(giannone, "WEIGHTS", (0.05,))
    monkeypatch.setattr(giannone, "IMAGES", {"quick": 8})
    monkeypatch.setattr(giannone_figures, "TRIPLETS", 12)


def context(tmp_path, **options):
    return Context(**{"budget": "quick", "out": tmp_path, "data": "digits", **options})


def test_every_table_and_figure_is_there():
    assert {f"giannone-{name}" for name in NAMES} <= set(experiments())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "table1"])  # as transfer
def test_each_writes_its_numbers_and_pictures(name, tmp_path):
    reproduce(f"giannone-{name}", context(tmp_path))
    written = json.loads((tmp_path / f"giannone-{name}.json").read_text())
    assert written["rows"]
    assert all(len(row) == len(written["columns"]) for row in written["rows"])
    assert written["settings"]["training_images"] == 40
    for path in written["figures"]:
        assert (tmp_path / path.split("/")[-1]).stat().st_size > 1000


def test_the_table_has_the_papers_figures_beside_ours(tmp_path, monkeypatch):
    probe = giannone.Probe(50.0, 80.0, 1.0, "made up")
    monkeypatch.setattr(giannone, "for_all", lambda f, c, specs: [probe] * len(specs))
    monkeypatch.setattr(giannone, "settings_of", lambda c, spec: {})
    result = giannone.table1(context(tmp_path, data=None))
    assert len(result.rows) == 6
    assert result.rows[-1][:6] == ["TVAE", 100, 90.6, 50.0, 98.1, 80.0]
    assert result.rows[-1][6:10] == [81.2, 50.0, 86.9, 80.0]


def test_the_paper_budget_is_appendix_b(tmp_path):
    for kind in ("VAE", "VAE+", "TVAE"):
        s = build(Spec(kind, "mnist", 100), context(tmp_path, budget="paper")).settings
        assert (s.epochs, s.learning_rate, s.halve_every, s.batch_size) == (200, 1e-4, 50, 100)
        assert (s.z_dim, s.validation) == (100, 0)


def test_hours_are_all_images_and_a_shorter_schedule(tmp_path):
    recipe = build(Spec("TVAE", "mnist", 100), context(tmp_path, budget="hours"))
    assert recipe.limit_train is None
    assert recipe.settings.epochs == giannone_models.DURATION["hours"]["epochs"] < 200


def test_the_middle_of_larger_images_is_kept():
    x = torch.zeros(2, 1, 40, 40)
    x[:, :, 6, 6] = 1.0
    framed = on_frame(Examples(x, torch.tensor([0, 1]))).x
    assert framed.shape == (2, 1, 28, 28)
    assert framed[0, 0, 0, 0] == 1.0
    with pytest.raises(UserError, match="20x20 pixels are too small"):
        on_frame(Examples(torch.zeros(1, 1, 20, 20)))


def test_without_labels_it_says_so(tmp_path):
    with pytest.raises(UserError, match="no labels"):
        giannone_models.labels_of(Examples(torch.zeros(1, 1, 28, 28)), torch.zeros(1))


def test_a_vae_transforms_by_half_the_difference_of_the_views(tmp_path):
    recipe = build(Spec("VAE", "digits", 4), context(tmp_path))
    x = recipe.splits.test.x[:3]
    x1, x2, others = x, x.flip(-1), x.flip(-2)
    upright, moved, back = giannone_figures.transferred(recipe, x1, x2, others)
    z1, z2, z = (image_codes(recipe.guide, part) for part in (x1, x2, others))
    torch.testing.assert_close(upright, giannone_figures.decoded(recipe.model, z))
    torch.testing.assert_close(moved, giannone_figures.decoded(recipe.model, z + (z1 - z2) / 2))
    torch.testing.assert_close(back, giannone_figures.decoded(recipe.model, z - (z1 - z2) / 2))


def test_a_transformation_moves_there_and_its_inverse_back(tmp_path):
    recipe = build(Spec("TVAE", "digits", 4), context(tmp_path))
    x = recipe.splits.test.x[:3]
    upright, moved, back = giannone_figures.transferred(recipe, x, x.flip(-1), x)
    z1, z2 = (image_codes(recipe.guide, part) for part in (x, x.flip(-1)))
    T = recipe.guide.transformation_posterior(z1, z2).mean.detach()
    torch.testing.assert_close(moved, giannone_figures.decoded(recipe.model, z1 + T))
    torch.testing.assert_close(back, giannone_figures.decoded(recipe.model, z1 - T))


def test_correlation_and_slope():
    angle = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    assert giannone_figures.correlation(angle, -3 * angle) == pytest.approx(-1)
    assert giannone_figures.slope(angle, -3 * angle) == pytest.approx(-3)
    assert giannone_figures.correlation(angle, torch.ones(4)) == 0
