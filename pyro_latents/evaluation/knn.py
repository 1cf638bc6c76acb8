"""Nearest neighbours in the latent space, the probe of Giannone et al. (2019)."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, neighbours: int = 5
) -> float:
    """Classify test codes by the majority of their nearest training codes.

    Of labels with equally many neighbours the one with the nearest of them wins.

    Args:
        train: Codes with known labels, `n dim`.
        train_labels: Their labels, integers of shape `n`.
        test: Codes to classify, `m dim`.
        test_labels: Their labels, of shape `m`.
        neighbours: How many neighbours vote; all of them if there are fewer.

    Returns:
        The accuracy in per cent.
    """
    neighbours = min(neighbours, len(train))
    # Less than a vote in all, and more the nearer: it decides between equal counts only.
    votes = 1 + 0.5 ** np.arange(2, 2 + neighbours)
    classifier = KNeighborsClassifier(
        neighbours,
        weights=lambda distances: np.tile(votes, (len(distances), 1)),
        algorithm="brute",
    )
    classifier.fit(train.numpy(force=True), train_labels.numpy(force=True))
    return 100 * float(classifier.score(test.numpy(force=True), test_labels.numpy(force=True)))
