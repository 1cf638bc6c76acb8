"""What poses and codes are measured by: how they follow turns, and what a linear machine sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_latents.checks.statistics import moments
from pyro_latents.data.affine import centred_grid, rotate

# Evenly spaced turns, the first of them zero.
ANGLES = 36
# Of a support vector machine: at the solver's default of 1e-4 the accuracy on MNIST's codes is
# the same to 0.02 %.
TOLERANCE = 1e-2
# Of k-means, whose clusters hang on where it starts.
RESTARTS = 10


@dataclass(frozen=True)
class Equivariance:
    """What turning test images did.

    Args:
        within: The circular correlation of the angle an image was turned by with the angle of its
            inferred pose, the mean over the images.
        pooled: The same over all images and angles together: it also asks that the reference pose
            of every image is turned equally far from the image as it was.
        by_class: The same over all images of a class, by class; empty without labels.
        input_change: The mean squared change of a pixel of the turned image from the image as it
            was, over what it changes from one image to another.
        reference_change: The same of the reference image that was inferred.
    """

    within: float
    pooled: float
    by_class: tuple[float, ...]
    input_change: float
    reference_change: float


def equivariance(
    images: Tensor,
    inferred: Callable[[Tensor], tuple[Tensor, Tensor]],
    y: Tensor | None = None,
) -> Equivariance:
    """Turn images all the way round and see what follows.

    Args:
        images: Images as they are, of shape `batch channels height width`.
        inferred: Maps images to the angle of their inferred pose in radians, `batch`, counted in
            either direction, and to what should not change, `batch channels height width`.
        y: The classes of the images, integers of shape `batch`, if they are known.
    """
    turns = torch.arange(ANGLES, device=images.device) * (2 * torch.pi / ANGLES)
    found, input_change, reference_change = [], 0.0, 0.0
    with torch.no_grad():
        _, as_it_was = inferred(images)
        for turn in turns:
            turned = rotate(images, turn.expand(len(images)))
            angle, reference = inferred(turned)
            found.append(angle)
            input_change += (turned - images).square().mean().item()
            reference_change += (reference - as_it_was).square().mean().item()
    angles = torch.stack(found)
    turned_by = turns[:, None].expand_as(angles)
    within = circular_correlation(turned_by, angles).mean().item()
    pooled = circular_correlation(turned_by.flatten(), angles.flatten()).item()
    of_classes = [y == label for label in y.unique()] if y is not None else []
    by_class = tuple(
        circular_correlation(turned_by[:, chosen].flatten(), angles[:, chosen].flatten()).item()
        for chosen in of_classes
    )
    # The first angle moves nothing.
    moved = ANGLES - 1
    changes = (
        input_change / moved / _between(images),
        reference_change / moved / _between(as_it_was),
    )
    return Equivariance(within, pooled, by_class, *changes)


def _between(images: Tensor) -> float:
    """The mean squared difference of a pixel of two images of a batch."""
    return 2 * images.var(0).mean().item()


def ink_angle(images: Tensor) -> Tensor:
    """Return the direction of the ink's long axis in radians, of shape `batch`.

    The axis is that of the largest second moment, towards where the ink reaches further. It turns
    along with an image, and nothing is learned: the least that an inferred pose should do.

    Args:
        images: Of shape `batch channels height width`, not negative.
    """
    m = moments(images)  # whose y is counted downwards
    angle = torch.atan2(-2 * m.xy, m.xx - m.yy) / 2
    points = centred_grid(images.shape[-2], images.shape[-1], like=images)
    x, y = points[:, 0] - m.x[:, None], points[:, 1] + m.y[:, None]
    along = x * angle.cos()[:, None] + y * angle.sin()[:, None]
    reach = (images.mean(-3).flatten(-2) * along**3).sum(-1)
    return angle + torch.pi * (reach < 0)


def circular_correlation(a: Tensor, b: Tensor) -> Tensor:
    r"""Correlate two angles along their first dimension: 1 if they turn together, -1 oppositely.

    .. math:: r = \frac{R(a - b) - R(a + b)}{2 \sqrt{V(a) V(b)}}, \qquad
              R(\alpha) = |\overline{e^{i \alpha}}|, \quad
              V(\alpha) = \overline{\sin^2(\alpha - \bar\alpha)}

    This form needs no mean direction in its numerator, which uniform angles do not have.

    Args:
        a: Angles in radians, of shape `n ...`.
        b: Angles in radians, of the same shape.

    References:
        Topics in Circular Statistics (Jammalamadaka and SenGupta, 2001), section 8.2
    """
    together, opposed = _resultant(a - b).abs(), _resultant(a + b).abs()
    spread = _sine_variance(a) * _sine_variance(b)
    return (together - opposed) / (2 * spread.sqrt()).clamp_min(torch.finfo(a.dtype).tiny)


def _resultant(angles: Tensor) -> Tensor:
    return torch.complex(angles.cos(), angles.sin()).mean(0)


def _sine_variance(angles: Tensor) -> Tensor:
    return (angles - _resultant(angles).angle()).sin().square().mean(0)


def cluster_accuracy(codes: Tensor, labels: Tensor) -> float:
    """Return how well clusters of codes are the classes, in per cent.

    The clusters are those of k-means, as many as there are classes. Each is named by a class of
    its own, so that most data points are right.

    Args:
        codes: Of shape `n ...`.
        labels: Their classes, integers of shape `n`.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.metrics.cluster import contingency_matrix

    truth = labels.cpu().numpy()
    kmeans = KMeans(len(np.unique(truth)), n_init=RESTARTS, random_state=0)
    found = kmeans.fit_predict(_rows(codes))
    counts = contingency_matrix(truth, found)
    return 100 * float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(truth))


@dataclass(frozen=True)
class SVMScores:
    """Accuracies in per cent, over the folds of the training set and on the test set.

    The machine of the latter is fitted to the whole training set.
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
    """Cross-validate a linear support vector machine, and score it on the test set.

    Args:
        train: Codes of shape `n ...`.
        train_labels: Their classes, integers of shape `n`.
        test: Codes of shape `m ...`.
        test_labels: Their classes, of shape `m`.
        folds: Parts of the training set, stratified by class; each is left out once. With fewer
            than two there is no cross-validation and its figures are NaN.
        standardise: Whether each feature is centred and scaled by the rows that a machine is
            fitted to. Pixels are better left alone: those of the margin hardly vary.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    features, labels = _rows(train), train_labels.cpu().numpy()
    # Rows outnumber features: the primal problem is the small one.
    linear = LinearSVC(dual=False, tol=TOLERANCE)
    machine = make_pipeline(StandardScaler() if standardise else "passthrough", linear)
    scores = np.full(1, np.nan)
    if folds > 1:
        parts = StratifiedKFold(folds, shuffle=True, random_state=0)
        scores = cross_val_score(machine, features, labels, cv=parts)
    accuracy = machine.fit(features, labels).score(_rows(test), test_labels.cpu().numpy())
    return SVMScores(*(100 * float(x) for x in (scores.mean(), scores.std(), accuracy)))


def _rows(codes: Tensor) -> np.ndarray:
    return codes.detach().flatten(1).cpu().double().numpy()
