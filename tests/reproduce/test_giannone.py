import json
from dataclasses import replace

import pytest
import torch

from pyro_latents.data.examples import Examples
from pyro_latents.errors import UserError
from pyro_latents.reproduce import giannone, giannone_transfer
from pyro_latents.reproduce.experiment import Context
from pyro_latents.reproduce.giannone import BUDGETS, job_of
from pyro_latents.reproduce.giannone_transfer import Probe, on_frame
from pyro_latents.reproduce.tables import experiments, reproduce
from pyro_latents.stories.triplet_tvae.metrics import image_codes

QUICK, HOURS, PAPER = BUDGETS
TINY = replace(
    QUICK, images=40, steps=1, test_images=8, particles=3, own={"labelled": 60, "tested": 20}
)
NAMES = ("table1", "transfer", "ablation", "figure2", "figure3", "figure4", "likelihood")


def context(tmp_path, budget=TINY, data="digits"):
    return Context(budget, tmp_path, data, processes=1)


def test_every_table_and_figure_is_there():
    assert {f"giannone-{name}" for name in NAMES} <= set(experiments())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "table1"])  # as transfer
def test_each_writes_its_numbers_and_pictures(name, tmp_path):
    reproduce(f"giannone-{name}", out=tmp_path, budget=TINY, data="digits", processes=1)
    written = json.loads((tmp_path / f"giannone-{name}.json").read_text())
    assert written["rows"]
    assert all(len(row) == len(written["columns"]) for row in written["rows"])
    assert written["settings"]["training_images"] == 40
    for path in written["figures"]:
        assert (tmp_path / path.split("/")[-1]).stat().st_size > 1000


def test_the_table_has_the_papers_figures_beside_ours(tmp_path, monkeypatch):
    probe = Probe(50.0, 80.0, 1.0, "made up")
    monkeypatch.setattr(Context, "apply", lambda self, _, jobs: [probe] * len(jobs))
    monkeypatch.setattr(giannone_transfer, "settings_of", lambda *_, **own: own)
    result = giannone_transfer.table1.run(context(tmp_path, data=None))
    assert len(result.rows) == 6
    assert result.rows[-1][:6] == ["TVAE", 100, 90.6, 50.0, 98.1, 80.0]
    assert result.rows[-1][6:10] == [81.2, 50.0, 86.9, 80.0]


def test_the_paper_budget_is_appendix_b(tmp_path):
    for kind in ("VAE", "VAE+", "TVAE"):
        job = job_of(context(tmp_path, PAPER), kind, "mnist", 100)
        s = job.build().story
        assert job.images is PAPER.steps is None
        assert (s.epochs, s.learning_rate, s.halve_every, s.batch_size) == (200, 1e-4, 50, 100)
        assert (s.z_dim, s.validation) == (100, 0)


def test_hours_are_all_images_and_a_shorter_schedule(tmp_path):
    recipe = job_of(context(tmp_path, HOURS), "TVAE", "mnist", 100).build()
    assert recipe.limit_train is None
    assert recipe.story.epochs == HOURS.numbers["epochs"] < 200


def test_models_of_other_numbers_have_folders_of_their_own(tmp_path):
    jobs = [
        job_of(context(tmp_path), "TVAE", "mnist", 10, **numbers)
        for numbers in ({}, {"mmd_weight": 1.0}, {"mmd_weight": 10.0}, {"indirect_views": True})
    ]
    assert len({job.folder for job in jobs}) == len(jobs)
    assert jobs[0].folder == tmp_path / "triplet-tvae-mnist-10"


def test_the_middle_of_larger_images_is_kept():
    x = torch.zeros(2, 1, 40, 40)
    x[:, :, 6, 6] = 1.0
    framed = on_frame(Examples(x, torch.tensor([0, 1]))).x
    assert framed.shape == (2, 1, 28, 28)
    assert framed[0, 0, 0, 0] == 1.0
    with pytest.raises(UserError, match="20x20 pixels are too small"):
        on_frame(Examples(torch.zeros(1, 1, 20, 20)))


def test_a_vae_transforms_by_half_the_difference_of_the_views(tmp_path):
    parts = job_of(context(tmp_path), "VAE", "digits", 4).build()
    x = parts.splits.test.x[:3]
    x1, x2, others = x, x.flip(-1), x.flip(-2)
    upright, moved, back = giannone.transferred(parts, x1, x2, others)
    z1, z2, z = (image_codes(parts.guide, part) for part in (x1, x2, others))
    torch.testing.assert_close(upright, giannone.decoded(parts.model, z))
    torch.testing.assert_close(moved, giannone.decoded(parts.model, z + (z1 - z2) / 2))
    torch.testing.assert_close(back, giannone.decoded(parts.model, z - (z1 - z2) / 2))


def test_a_transformation_moves_there_and_its_inverse_back(tmp_path):
    parts = job_of(context(tmp_path), "TVAE", "digits", 4).build()
    x = parts.splits.test.x[:3]
    upright, moved, back = giannone.transferred(parts, x, x.flip(-1), x)
    z1, z2 = (image_codes(parts.guide, part) for part in (x, x.flip(-1)))
    T = parts.guide.transformation_posterior(z1, z2).mean.detach()
    torch.testing.assert_close(moved, giannone.decoded(parts.model, z1 + T))
    torch.testing.assert_close(back, giannone.decoded(parts.model, z1 - T))


def test_correlation_and_slope():
    angle = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    assert giannone.correlation(angle, -3 * angle) == pytest.approx(-1)
    assert giannone.slope(angle, -3 * angle) == pytest.approx(-3)
    assert giannone.correlation(angle, torch.ones(4)) == 0
