import json
import math

import pytest

from pyro_latents.errors import UserError
from pyro_latents.evaluation.linear_svm import SVMScores
from pyro_latents.reproduce import parallel, vive, vive_figures, vive_models
from pyro_latents.reproduce.experiment import Context, experiments, reproduce

FIGURES = [f"vive-figure{number}" for number in (5, 6, 8, 9, 10, 11)]


@pytest.fixture
def context(tmp_path, monkeypatch) -> Context:
    monkeypatch.setattr(vive_models, "QUICK_IMAGES", 200)
    monkeypatch.setattr(vive_models, "QUICK_STEPS", 3)
    monkeypatch.setattr(vive, "BOUND_PARTICLES", 20)
    monkeypatch.setattr(vive, "QUICK_TEST_IMAGES", 10)
    monkeypatch.setattr(vive_figures, "QUICK_DIMENSIONS", (20,))
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0})
    return Context(budget="quick", out=tmp_path / "out", data="digits")


def test_every_table_and_figure_of_the_thesis_has_a_name():
    expected = ["vive-table1", "vive-bound-gap", "vive-rotated", *FIGURES]
    assert set(expected) <= set(experiments())


def test_table1_has_the_eleven_rows_of_the_thesis(context, monkeypatch):
    monkeypatch.setattr(vive, "svm_scores", _scores)
    result = reproduce("vive-table1", context)
    assert len(result.rows) == 11
    assert [row[0] for row in result.rows] == [row[0] for row in vive.TABLE1]
    for row in result.rows:
        assert row[1:4] == [None] * 3  # the thesis' figures are of MNIST
        assert row[4] == (row[0] != "Raw MNIST")
    written = json.loads((context.out / "vive-table1.json").read_text())
    assert written["settings"]["steps"] == 3


def test_the_bound_is_below_the_evidence(context):
    for _, elbo, evidence, gap, *_ in reproduce("vive-bound-gap", context).rows:
        assert gap == pytest.approx(evidence - elbo)
        assert gap > -1


def test_rotated_digits_are_measured_with_and_without_a_pose(context):
    vae, *posed = reproduce("vive-rotated", context).rows
    assert vae[1:3] == [None, None]
    assert len(posed) == 4
    for row in posed:
        assert all(math.isfinite(cell) for cell in row[1:])
        assert row[5] == pytest.approx(row[4] / row[3])


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_and_tabulated(context, name):
    result = reproduce(name, context)
    assert result.rows
    assert all(len(row) == len(result.columns) for row in result.rows)
    for path in result.figures:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_models_of_one_label_and_other_settings_have_folders_of_their_own():
    specs = [
        vive_models.spec_of("Affine-TVAE", 20),
        vive_models.spec_of("Affine-TVAE", 20, pose_prior="fitted"),
        vive_models.spec_of("Affine-TVAE", 20, data="rotated-mnist"),
        vive_models.spec_of("TPS-TVAE", 20),
    ]
    assert len({spec.folder for spec in specs}) == len(specs)
    assert specs[1].folder == "affine-tvae-20-fitted"


def test_the_paper_budget_is_fifty_epochs_of_all_of_mnist(tmp_path):
    context = Context(budget="paper", out=tmp_path)
    for kind in vive_models.KINDS:
        recipe = vive_models.build(vive_models.spec_of(kind, 8), context)
        assert (recipe.settings.epochs, recipe.settings.validation) == (50, 0)
        assert recipe.limit_train is None
        assert recipe.settings.data == "mnist"


def _scores(train, train_labels, test, test_labels, **_) -> SVMScores:
    assert len(train) == len(train_labels)
    assert len(test) == len(test_labels)
    return SVMScores(float(train.shape[1] <= 20), 0.0, 0.0)


def _fails(number: int) -> int:
    if number == 2:
        raise UserError("number 2 is wrong: give another.")
    return number * number


@pytest.mark.parametrize("cores", [1, 2])
def test_jobs_come_back_in_order_and_errors_too(monkeypatch, cores):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(cores)))
    assert parallel.in_processes(abs, [-3, 1, -2]) == [3, 1, 2]
    if cores == 1:
        with pytest.raises(UserError, match="number 2 is wrong"):
            parallel.in_processes(_fails, [1, 2, 3])
