"""Draws of the prior predictive against test data, as two populations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Population:
    """Whether data could be draws of the model.

    Args:
        observed: Each statistic of the test data, of shape `points`.
        drawn: Each statistic of draws from the prior, of shape `draws`.
        classes: How many test points, and draws, there are of each class of a classifier, or None.
        frechet_distance: Between normals fitted to the classifier's features of both, or None.
    """

    observed: dict[str, Tensor]
    drawn: dict[str, Tensor]
    classes: tuple[Tensor, Tensor] | None = None
    frechet_distance: float | None = None

    def p_values(self) -> dict[str, float]:
        """Return for each statistic the p-value of one distribution for data and draws.

        They are Kolmogorov and Smirnov's of two samples; ``classes`` is the chi-squared test of
        the two histograms.
        """
        from scipy.stats import chi2_contingency, ks_2samp

        found = {
            name: float(ks_2samp(self.observed[name].numpy(), drawn.numpy()).pvalue)
            for name, drawn in self.drawn.items()
        }
        if self.classes is not None:
            table = torch.stack(self.classes).numpy()
            table = table[:, table.sum(0) > 0]
            # One class on both sides leaves nothing to tell apart.
            found["classes"] = float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
        return found


def frechet_distance(first: Tensor, second: Tensor) -> float:
    r"""Return the Fréchet distance between normals fitted to two sets `points features`.

    .. math:: |m_1 - m_2|^2 + \mathrm{tr}\big(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2}\big)

    References:
        GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), section 4
    """
    first, second = first.double(), second.double()
    mean = (first.mean(0) - second.mean(0)).square().sum()
    a, b = torch.cov(first.T), torch.cov(second.T)
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
    return (mean + a.trace() + b.trace() - 2 * cross).clamp_min(0).item()
