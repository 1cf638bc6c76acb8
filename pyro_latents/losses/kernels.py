r"""Kernels on latent codes, and the maximum mean discrepancy between two laws.

A kernel here is a function of the squared distance, averaged over several lengths :math:`\ell_k`:

.. math:: \ell_k^2 = \mathrm{scale}_k \times \mathrm{reference}

The reference is a squared distance that is typical of the codes, so that one list of scales
serves every latent dimension. All kernels lie in (0, 1] and are one at distance zero, therefore a
squared discrepancy lies in [-2, 2] whatever the kernel.

References:
    A Kernel Two-Sample Test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html
    Wasserstein Auto-Encoders (Tolstikhin et al., 2018), https://arxiv.org/abs/1711.01558
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# A location and a standard deviation of each coordinate, both `*batch dim`.
Moments = tuple[Tensor, Tensor]


class Kernel(nn.Module):
    r"""A mixture of radial kernels, `k(|x - y|^2)`.

    Args:
        scales: Multiples of the reference; the kernel is the mean over them. If not given, they
            are the kernel's own.
        reference: The squared length that they multiply; if not given, it is `2 dim`, the expected
            squared distance between two draws from a standard normal of `dim` dimensions.

    Raises:
        ValueError: if there is no scale, or a scale or the reference is not positive.

    Implementing a kernel:
        - ``profile`` maps squared distances and one squared length to values in (0, 1];
        - it is smooth at distance zero, where gradients are needed as well.
    """

    # Two orders of magnitude around the typical distance, evenly on a logarithmic scale.
    usual_scales: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __init__(
        self, scales: Sequence[float] | None = None, reference: float | None = None
    ) -> None:
        super().__init__()
        scales = self.usual_scales if scales is None else scales
        if not scales or min(scales) <= 0:
            raise ValueError(f"{type(self).__name__} expects positive scales; got {scales}.")
        if reference is not None and not reference > 0:
            raise ValueError(f"{type(self).__name__} expects reference > 0; got {reference}.")
        self.scales = tuple(scales)
        self.reference = reference

    @abstractmethod
    def profile(self, squared_distance: Tensor, squared_length: float) -> Tensor:
        """Return the kernel of one length at the given squared distances."""

    def squared_lengths(self, dim: int) -> list[float]:
        """Return the squared lengths of the mixture for codes of `dim` dimensions."""
        reference = 2.0 * dim if self.reference is None else self.reference
        return [scale * reference for scale in self.scales]

    def forward(self, squared_distance: Tensor, dim: int) -> Tensor:
        """Return the kernel at squared distances between codes of `dim` dimensions.

        Args:
            squared_distance: Of any shape.
            dim: Dimension of the codes.
        """
        total = torch.zeros_like(squared_distance)
        for squared_length in self.squared_lengths(dim):
            total = total + self.profile(squared_distance, squared_length)
        return total / len(self.scales)


class InverseMultiquadric(Kernel):
    r""":math:`k = \ell^2 / (\ell^2 + |x - y|^2)`: heavy tails, a gradient at any distance."""

    def profile(self, squared_distance: Tensor, squared_length: float) -> Tensor:
        """Return `l^2 / (l^2 + d^2)`."""
        return squared_length / (squared_length + squared_distance)


class RBF(Kernel):
    r""":math:`k = \exp(-|x - y|^2 / 2 \ell^2)`: closed forms for normals, and thin tails.

    Its usual lengths reach further than those of heavier tails, so that codes feel each other
    from far away, and to shorter ones, so that near ones are told apart.
    """

    usual_scales = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0)

    def profile(self, squared_distance: Tensor, squared_length: float) -> Tensor:
        """Return `exp(-d^2 / 2 l^2)`."""
        return torch.exp(-squared_distance / (2 * squared_length))

    def expected(self, squared_gap: Tensor, variance: Tensor) -> Tensor:
        r"""Return `E k(|x - y|^2)` where `x - y` is normal, with independent coordinates.

        .. math:: \prod_j \sqrt{\frac{\ell^2}{\ell^2 + v_j}} \,
                  \exp\left(-\frac{g_j^2}{2 (\ell^2 + v_j)}\right)

        Args:
            squared_gap: Squared means of `x - y`, `*batch dim`.
            variance: Variances of `x - y`, `*batch dim`.

        Returns:
            The mean over the lengths, of shape `batch`.
        """
        lengths = self.squared_lengths(squared_gap.shape[-1])
        # In units of each length, which stand in front: one operation serves them all. A tensor of
        # the lengths would be copied from the host, which a CUDA graph cannot do.
        gaps = torch.stack([squared_gap / length for length in lengths])
        width = torch.stack([1 + variance / length for length in lengths])
        return (-0.5 * (width.log() + gaps / width).sum(-1)).exp().mean(0)


def normal_mmd_squared(q: Moments, p: Moments, kernel: RBF) -> Tensor:
    """Return the squared discrepancy between normals with independent coordinates, exactly.

    A point is a normal of width zero.

    Args:
        q: The moments of one of each pair, `*batch dim`.
        p: The moments of the other.
        kernel: The kernel.

    Returns:
        The discrepancy of each pair, of shape `batch`.
    """
    (q_loc, q_scale), (p_loc, p_scale) = q, p
    gap, q_variance, p_variance = (q_loc - p_loc).square(), q_scale.square(), p_scale.square()
    none = torch.zeros_like(gap)
    within = kernel.expected(none, 2 * q_variance) + kernel.expected(none, 2 * p_variance)
    return within - 2 * kernel.expected(gap, q_variance + p_variance)


def pairwise_squared_distance(x: Tensor) -> Tensor:
    """Return the squared Euclidean distances, `*leading n n`, between rows, `*leading n dim`.

    By differences of inner products: one matrix product, and a gradient that is finite where two
    rows agree (the square root of `torch.cdist` has none there).
    """
    centred = x - x.mean(-2, keepdim=True).detach()
    norm = centred.square().sum(-1)
    product = centred @ centred.transpose(-1, -2)
    return (norm.unsqueeze(-1) + norm.unsqueeze(-2) - 2 * product).clamp_min(0.0)


def mmd_squared(
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    *,
    groups: Tensor | None = None,
    weights: Tensor | None = None,
    unbiased: bool = True,
) -> Tensor:
    r"""Estimate the squared maximum mean discrepancy between the laws of two paired samples.

    .. math:: \widehat{\mathrm{MMD}}^2 = \frac{\sum_{i, j} w_{ij} \left[k(x_i, x_j) + k(y_i, y_j)
              - k(x_i, y_j) - k(y_i, x_j)\right]}{\sum_{i, j} w_{ij}}

    The unbiased estimator leaves out every pair within a group, also between `x` and `y`: it is
    Gretton et al.'s lemma 6 (equation 4), unbiased even where `y_i` was drawn given `x_i`. The
    biased one keeps all pairs and is never negative.

    Args:
        x: The first sample, `*leading n dim`.
        y: The second sample, of the same shape.
        kernel: The kernel.
        groups: Integers, `n`: rows with the same one are dependent (particles of one data point).
            By default each row is a group of its own.
        weights: Non-negative weights of the rows, `n`, by default one: :math:`w_{ij} = w_i w_j`.
        unbiased: Which estimator.

    Returns:
        One number for each pair of samples, of shape `leading`. It is not a number if no pair of
        rows is left.
    """
    n = x.shape[-2]
    k = kernel(pairwise_squared_distance(torch.cat([x, y], dim=-2)), x.shape[-1])
    terms = k[..., :n, :n] + k[..., n:, n:] - k[..., :n, n:] - k[..., n:, :n]
    pairs = terms.new_ones(n, n) if weights is None else weights[:, None] * weights[None, :]
    if unbiased:
        groups = torch.arange(n, device=x.device) if groups is None else groups
        pairs = pairs * (groups[:, None] != groups[None, :])
    return (pairs * terms).sum((-2, -1)) / pairs.sum()
