"""Linear support vector machines on codes: how much of the class is linearly separable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

# At the solver's default of 1e-4 the accuracy on MNIST's codes is the same to 0.02 %.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class SVMScores:
    """Accuracies in per cent.

    Args:
        fold_mean: The mean over the folds of the training set.
        fold_sd: The standard deviation over the folds.
        test: On the test set, fitted to the whole training set.
    """

    fold_mean: float
    fold_sd: float
    test: float


def svm_scores(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    folds: int = 9,
    standardise: bool = True,
) -> SVMScores:
    """Cross-validate a linear SVM on the training set and score it on the test set.

    Args:
        train: Codes of shape `n ...`.
        train_labels: Integer classes, of shape `n`.
        test: Codes of shape `m ...`.
        test_labels: Integer classes, of shape `m`.
        folds: Parts of the training set, stratified by class; each is left out once. With fewer
            than two there is no cross-validation and its figures are NaN.
        standardise: Whether each feature is centred and scaled by the rows that a machine is
            fitted to. Pixels are better left alone: those of the margin hardly vary.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    features, labels = _rows(train), train_labels.cpu().numpy()
    machine = _machine(standardise)
    scores = np.full(1, np.nan)
    if folds > 1:
        parts = StratifiedKFold(folds, shuffle=True, random_state=0)
        scores = cross_val_score(machine, features, labels, cv=parts)
    accuracy = machine.fit(features, labels).score(_rows(test), test_labels.cpu().numpy())
    return SVMScores(*(100 * float(x) for x in (scores.mean(), scores.std(), accuracy)))


def _rows(codes: Tensor) -> np.ndarray:
    return codes.detach().flatten(1).cpu().double().numpy()


def _machine(standardise: bool) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    # Rows outnumber features: the primal problem is the small one.
    machine = LinearSVC(dual=False, tol=TOLERANCE)
    return make_pipeline(StandardScaler() if standardise else "passthrough", machine)
