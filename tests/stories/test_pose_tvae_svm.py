import math

import pytest
import torch

from pyro_latents.stories.pose_tvae.metrics import svm_scores


def classes(n: int, dim: int, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(n) % 3
    return torch.randn(n, dim) + distance * torch.nn.functional.one_hot(y, dim), y


@pytest.mark.parametrize("standardise", [True, False])
def test_separated_classes_are_told_apart(standardise):
    torch.manual_seed(0)
    x, y = classes(600, 4, 20.0)
    scores = svm_scores(x[:450], y[:450], x[450:], y[450:], folds=3, standardise=standardise)
    assert scores.fold_mean > 99
    assert scores.fold_sd < 1
    assert scores.test > 99


def test_noise_is_at_the_level_of_chance():
    torch.manual_seed(0)
    x, y = classes(900, 4, 0.0)
    scores = svm_scores(x[:600], y[:600], x[600:], y[600:], folds=3)
    assert abs(scores.fold_mean - 100 / 3) < 10
    assert scores.fold_sd > 0


def test_the_scale_of_a_feature_does_not_matter():
    torch.manual_seed(0)
    x, y = classes(600, 4, 2.0)
    scale = torch.tensor([1e-4, 1.0, 10.0, 1e3])
    plain, scaled = (
        svm_scores(a[:450], y[:450], a[450:], y[450:], folds=2) for a in (x, x * scale)
    )
    assert plain.test == pytest.approx(scaled.test, abs=0.1)


def test_without_folds_there_is_no_cross_validation():
    x, y = classes(60, 4, 20.0)
    scores = svm_scores(x, y, x, y, folds=0)
    assert math.isnan(scores.fold_mean)
    assert scores.test == 100
