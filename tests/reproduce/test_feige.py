import json
import sys
from types import SimpleNamespace

import pytest
import torch

from pyro_latents.reproduce import feige, feige_figures, feige_models, parallel
from pyro_latents.reproduce.experiment import Context, experiments, reproduce
from pyro_latents.reproduce.feige_models import Spec, build

NAMES = [f"feige-{name}" for name in ("table1", "table2", "figure3", "figure4", "figure5")]


@pytest.fixture
def context(tmp_path, monkeypatch) -> Context:
    monkeypatch.setattr(feige_models, "CLASSIFIER_STEPS", 5)
    monkeypatch.setattr(feige_figures, "SAMPLES", 10)
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0})
    plain = feige_models.build
    supervised = {"width": 4, "batch_size": 200, "epochs": 2}
    semi = {"width": 4, "batch_size": 500, "epochs": 1, "warm_up": 0.0}

    def smaller(spec, context):
        settings = {**(supervised if spec.labels is None else semi), **spec.settings}
        return plain(Spec(spec.data, spec.seed, spec.labels, settings), context)

    for module in (feige_models, feige_figures):
        monkeypatch.setattr(module, "build", smaller)
    return Context(budget="quick", out=tmp_path / "out", data="digits")


def test_every_table_and_figure_has_a_name():
    assert set(NAMES) <= set(experiments())


def test_table1_has_the_three_classifiers(context):
    result = reproduce("feige-table1", context)
    assert [row[1] for row in result.rows] == [technique for technique, *_ in feige.TABLE1]
    for row in result.rows:
        assert row[2:4] == [None, None]  # the paper's figures are of MNIST and SVHN
        assert 0 <= row[4] <= 100
        assert row[5:] == [None, 1]
    written = json.loads((context.out / "feige-table1.json").read_text())
    assert written["settings"]["epochs"] == 2


def test_table2_has_the_benchmark_beside(context):
    result = reproduce("feige-table2", context)
    (row,) = result.rows
    assert row[:2] == ["digits", 100]
    assert len(row) == len(result.columns)
    assert all(0 <= row[i] <= 100 for i in (6, 8, 10))


@pytest.mark.parametrize("name", NAMES[2:])
def test_figures_are_drawn_and_tabulated(context, name):
    result = reproduce(name, context)
    assert result.rows
    assert all(len(row) == len(result.columns) for row in result.rows)
    for path in result.figures:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_learning_curve_is_not_trained_twice(context, monkeypatch):
    first = reproduce("feige-figure3", context).rows
    assert [row[0] for row in first] == [1, 2]
    monkeypatch.setattr(Context, "train", None)
    assert reproduce("feige-figure3", context).rows == first


def test_codes_are_laid_out_by_umap_where_it_is(monkeypatch):
    class UMAP:
        def __init__(self, random_state, n_jobs):
            assert (random_state, n_jobs) == (3, 1)

        def fit_transform(self, codes):
            return codes[:, :2]

    codes = torch.rand(6, 4)
    assert feige_figures._plane(codes, 3)[0].shape == (6, 2)
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    points, method = feige_figures._plane(codes, 3)
    assert method == "UMAP"
    assert torch.equal(points, codes[:, :2])


def test_the_paper_s_figures_stand_beside_ours_on_mnist():
    assert feige.TABLE1[2][2]["mnist"] == (0.82, 0.05)
    assert feige.TABLE2["mnist"][100] == ((8.90, 0.70), (21.91, 0.66))
    assert feige._labels("mnist", Context(budget="quick", out=None)) == (100, 1000)
    assert feige._labels("mnist", Context(budget="paper", out=None)) == (100, 600, 1000, 3000)


def test_the_standard_error_is_the_paper_s():
    assert feige._mean([1.0, 3.0]) == [2.0, 1.0, 2]
    assert feige._mean([4.0]) == [4.0, None, 1]


def test_models_of_other_settings_have_folders_of_their_own():
    specs = [
        Spec("mnist"),
        Spec("mnist", seed=1),
        Spec("mnist", labels=100),
        Spec("mnist", settings={"r_dim": 2, "v_dim": 2}),
    ]
    assert len({spec.folder for spec in specs}) == len(specs)
    assert specs[3].folder == "equivae-mnist-r-dim2-v-dim2-seed0"


def test_the_epochs_are_the_paper_s(tmp_path):
    context = Context(budget="paper", out=tmp_path)
    assert build(Spec("mnist"), context).settings.epochs == 40
    few = build(Spec("mnist", 3, 600), context).settings
    assert (few.epochs, few.labels, few.label_seed) == (25, 600, 3)
    quick = build(Spec("mnist"), Context(budget="quick", out=tmp_path))
    assert quick.settings.epochs == feige_models.QUICK_EPOCHS
    assert quick.limit_train is None
    assert build(Spec("mnist", 0, 100), Context("quick", tmp_path)).limit_train == 20_000
