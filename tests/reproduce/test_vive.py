import json
import math
from dataclasses import replace

import pytest

from pyro_latents.reproduce import vive
from pyro_latents.reproduce.experiment import Budget, Context
from pyro_latents.reproduce.tables import experiments, reproduce
from pyro_latents.reproduce.vive import BUDGETS, KINDS, job_of
from pyro_latents.stories.pose_tvae.metrics import SVMScores

FIGURES = [f"vive-figure{number}" for number in (5, 6, 8, 9, 10, 11)]
OWN = {"dimensions": (20,)}
TINY = Budget(name="tiny", images=200, steps=3, particles=20, test_images=10, own=OWN)


@pytest.fixture
def asked(tmp_path) -> dict:
    return {"budget": TINY, "out": tmp_path / "out", "data": "digits", "processes": 1}


def test_every_table_and_figure_of_the_thesis_has_a_name():
    expected = ["vive-table1", "vive-bound-gap", "vive-rotated", *FIGURES]
    assert set(expected) <= set(experiments())


def test_table1_has_the_eleven_rows_of_the_thesis(asked, monkeypatch):
    monkeypatch.setattr(vive, "svm_scores", _scores)
    result = reproduce("vive-table1", **asked)
    assert len(result.rows) == 11
    assert [row[0] for row in result.rows][::10] == ["Raw MNIST", "Affine-DTVAE (20)"]
    for row in result.rows:
        assert row[1:4] == [None] * 3  # the thesis' figures are of MNIST
        assert row[4] == (row[0] != "Raw MNIST")
    written = json.loads((asked["out"] / "vive-table1.json").read_text())
    assert written["settings"]["steps"] == 3
    assert written["budget"] == "tiny"


def test_the_bound_is_below_the_evidence(asked):
    for _, elbo, evidence, gap, *_ in reproduce("vive-bound-gap", **asked).rows:
        assert gap == pytest.approx(evidence - elbo)
        assert gap > -1


def test_rotated_digits_are_measured_with_and_without_a_pose(asked):
    vae, *posed = reproduce("vive-rotated", **asked).rows
    assert vae[1:3] == [None, None]
    assert len(posed) == 4
    for row in posed:
        assert all(math.isfinite(cell) for cell in row[1:])
        assert row[5] == pytest.approx(row[4] / row[3])


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_and_tabulated(asked, name):
    result = reproduce(name, **asked)
    assert result.rows
    assert all(len(row) == len(result.columns) for row in result.rows)
    for path in result.figures:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_models_of_one_label_and_other_settings_have_folders_of_their_own(tmp_path):
    context = Context(TINY, tmp_path)
    jobs = [
        job_of(context, "Affine-TVAE", 20),
        job_of(context, "Affine-TVAE", 20, pose_prior="fitted"),
        job_of(context, "Affine-TVAE", 20, pose_prior="fitted", guide="flow"),
        job_of(context, "Affine-TVAE", 20, pose_prior="full", pose_rank=3),
        job_of(replace(context, data="rotated-mnist"), "Affine-TVAE", 20),
        job_of(context, "TPS-TVAE", 20),
    ]
    assert len({job.folder for job in jobs}) == len(jobs)
    assert jobs[1].folder == tmp_path / "affine-tvae-20-fitted"
    assert jobs[3].folder == tmp_path / "affine-tvae-20-full-3"


def test_the_paper_budget_is_fifty_epochs_of_all_of_mnist(tmp_path):
    context = Context(BUDGETS[-1], tmp_path)
    for kind in KINDS:
        job = job_of(context, kind, 8)
        recipe = job.build()
        assert (recipe.story.epochs, recipe.story.validation) == (50, 0)
        assert job.images is job.context.budget.steps is None
        assert recipe.story.data == "mnist"


def _scores(train, train_labels, test, test_labels, **_) -> SVMScores:
    assert len(train) == len(train_labels)
    assert len(test) == len(test_labels)
    return SVMScores(float(train.shape[1] <= 20), 0.0, 0.0)
