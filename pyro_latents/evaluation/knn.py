"""Nearest neighbours in the latent space, the probe of Giannone et al. (2019)."""

import torch
from torch import Tensor

# Distances held at a time; it bounds the memory whatever the number of codes.
CHUNK = 20_000_000


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, neighbours: int = 5
) -> float:
    """Classify test codes by the majority of their nearest training codes.

    Of labels with equally many neighbours the one with the nearest of them wins.

    Args:
        train: Codes with known labels, `n dim`.
        train_labels: Their labels, integers of shape `n`.
        test: Codes to classify, `m dim`, on the same device.
        test_labels: Their labels, of shape `m`.
        neighbours: How many neighbours vote; all of them if there are fewer.

    Returns:
        The accuracy in per cent.

    Raises:
        ValueError: if there is nothing to learn from or to classify, or nobody votes.
    """
    if not len(train) or not len(test) or neighbours < 1:
        raise ValueError(
            f"knn_accuracy needs training codes, test codes and neighbours; got {len(train)}, "
            f"{len(test)} and {neighbours}."
        )
    neighbours = min(neighbours, len(train))
    num_classes = int(torch.maximum(train_labels.max(), test_labels.max())) + 1
    right = 0
    for codes, labels in zip(
        *(part.split(max(1, CHUNK // len(train))) for part in (test, test_labels)), strict=True
    ):
        nearest = torch.cdist(codes, train).topk(neighbours, largest=False).indices
        found = train_labels[nearest]
        votes = torch.zeros(len(codes), num_classes, device=codes.device)
        votes.scatter_add_(1, found, torch.ones_like(found, dtype=votes.dtype))
        # Less than a vote in all, and more the nearer: it decides between equal counts only.
        tie = 0.5 ** torch.arange(2, 2 + neighbours, device=codes.device, dtype=votes.dtype)
        votes.scatter_add_(1, found, tie.expand(found.shape))
        right += (votes.argmax(1) == labels).sum().item()
    return 100 * right / len(test)
