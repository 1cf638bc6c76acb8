"""Nearest neighbours in the latent space, the probe of Giannone et al. (2019)."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

# Of the variance of codes that whitening keeps: directions that hardly vary are noise.
KEPT = 0.99


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
    return knn_accuracies(train, train_labels, test, test_labels, neighbours=[neighbours])[0]


def knn_accuracies(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    neighbours: Sequence[int],
) -> list[float]:
    """Return the accuracies of `knn_accuracy` for several numbers of neighbours, by one search."""
    most = min(max(neighbours), len(train))
    search = NearestNeighbors(n_neighbors=most, algorithm="brute").fit(train.numpy(force=True))
    nearest = search.kneighbors(test.numpy(force=True), return_distance=False)
    kinds, known = np.unique(train_labels.numpy(force=True), return_inverse=True)
    # Less than a vote in all, and more the nearer: it decides between equal counts only.
    votes = 1 + 0.5 ** np.arange(2, 2 + most)
    ballots = votes[:, None] * (known[nearest][..., None] == np.arange(len(kinds)))
    truth = test_labels.numpy(force=True)
    return [
        100 * float((kinds[ballots[:, :count].sum(1).argmax(1)] == truth).mean())
        for count in neighbours
    ]


def whitened(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Return codes, `n dim` each, in directions in which the first of them have unit variance.

    Of the directions those stay that have `KEPT` of the variance; no labels are looked at.
    """
    pca = PCA(KEPT, whiten=True, svd_solver="full").fit(train.numpy(force=True))
    return [torch.from_numpy(pca.transform(x.numpy(force=True))) for x in (train, *others)]
