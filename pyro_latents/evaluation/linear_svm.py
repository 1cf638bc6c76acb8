"""Linear support vector machines on codes: how much of the class is linearly separable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# The optimum's accuracy is reached well before the default of 1e-4 on tens of thousands of rows.
TOLERANCE = 1e-2
# Of two solvers for one optimum, the primal one is quicker on few features, the dual on many.
FEATURES_FOR_DUAL = 200


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
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, folds: int = 9
) -> SVMScores:
    """Cross-validate a linear SVM on the training set and score it on the test set.

    Features are standardised by the rows that a machine is fitted to.

    Args:
        train: Codes of shape `n ...`.
        train_labels: Integer classes, of shape `n`.
        test: Codes of shape `m ...`.
        test_labels: Integer classes, of shape `m`.
        folds: Parts of the training set, stratified by class; each is left out once. With fewer
            than two there is no cross-validation and its figures are NaN.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    features, labels = _rows(train), train_labels.cpu().numpy()
    machine = _machine(features.shape[1])
    scores = np.full(1, np.nan)
    if folds > 1:
        parts = StratifiedKFold(folds, shuffle=True, random_state=0)
        scores = cross_val_score(machine, features, labels, cv=parts)
    accuracy = machine.fit(features, labels).score(_rows(test), test_labels.cpu().numpy())
    return SVMScores(*(100 * float(x) for x in (scores.mean(), scores.std(), accuracy)))


def _rows(codes: Tensor) -> np.ndarray:
    return codes.detach().flatten(1).cpu().double().numpy()


def _machine(num_features: int) -> Pipeline:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    dual = num_features > FEATURES_FOR_DUAL
    return make_pipeline(
        StandardScaler(), LinearSVC(dual=dual, tol=TOLERANCE, random_state=0, max_iter=200)
    )
