"""The squared maximum mean discrepancy between a site of a guide and that of its model.

Two readings, each `N MMD^2` of a site over the data plate: `within`, the mean over the data points
of the discrepancy of their conditional distributions, and `across`, that of what all data points
have together.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution, Normal
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent

from pyro_latents.errors import UserError
from pyro_latents.losses.kernels import (
    RBF,
    InverseMultiquadric,
    Kernel,
    Moments,
    mmd_squared,
    normal_mmd_squared,
)
from pyro_latents.programs import Site

PARTICLES = "num_particles_vectorized"  # the plate that `pyro.infer.ELBO` wraps around both
# Of each distribution of a data point without a closed form; a pair is the least that is unbiased.
DRAWS = 8


def within(guide_site: Site, model_site: Site, kernel: Kernel | None) -> Tensor:
    r"""Return the discrepancy between two distributions of each data point, summed over them.

    .. math:: \sum_i w_i \, \mathrm{MMD}^2[q_i, p_i]

    The weights are the scales of the data points that are not masked. It is exact where both are
    normals with independent coordinates, or points, and the kernel is Gaussian, as it then is if
    none is given; otherwise it is estimated, without bias, by draws of both.
    """
    q, p = guide_site["fn"], model_site["fn"]
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    q_moments, p_moments = moments(q), moments(p)
    if q_moments is not None and p_moments is not None and isinstance(kernel, RBF | None):
        squared = normal_mmd_squared(q_moments, p_moments, kernel or RBF())
    else:
        kernel = kernel or InverseMultiquadric()
        squared = mmd_squared(_draws(q, batch), _draws(p, batch), kernel)
    return _weighted(squared.expand(batch), guide_site, model_site).sum()


def moments(distribution: Any) -> Moments | None:
    """Return the locations and widths, `*batch dim`, of a normal with independent coordinates.

    A point is one of width zero. Of other distributions there are none.
    """
    base = distribution
    while isinstance(base, MaskedDistribution | Independent):
        base = base.base_dist
    if isinstance(base, Normal):
        found = base.loc, base.scale
    elif isinstance(base, Delta):
        found = base.v, torch.zeros_like(base.v)
    else:
        return None
    shape = distribution.batch_shape + distribution.event_shape
    loc, scale = (part.expand(shape) for part in found)
    dims = len(distribution.batch_shape)
    return loc.reshape(*shape[:dims], -1), scale.reshape(*shape[:dims], -1)


def across(
    pairs: Sequence[tuple[Site, Site]],
    kernel: Kernel | None,
    *,
    beside: Sequence[Sequence[Site]],
    unbiased: bool,
) -> Tensor:
    """Return the discrepancy between the guide's values and draws of the model, over data points.

    Args:
        pairs: The site of the guide, and that of the model, of each particle; they are pooled.
        kernel: The kernel; the inverse multiquadric mixture if none is given.
        beside: Sites of the guide, of each particle, whose values stand beside both samples.
        unbiased: Whether to use the unbiased estimator, which needs two data points.

    Raises:
        UserError: if the unbiased estimator meets a single data point.
    """
    samples = [_sample_pair(*pair, own) for pair, own in zip(pairs, beside, strict=True)]
    x, y, weights = (torch.cat(parts) for parts in zip(*samples, strict=True))
    particles, n, _ = x.shape
    frames = pairs[0][1]["cond_indep_stack"]
    plated = any(frame.vectorized and frame.name != PARTICLES for frame in frames)
    # Without a plate the particles are the independent draws.
    count = n if plated else particles
    index = torch.arange(count, device=x.device)
    groups = (index if plated else index[:, None]).expand(particles, n).flatten()
    x, y, weights = x.flatten(0, 1), y.flatten(0, 1), weights.flatten()
    mass = weights.sum() / particles
    if any(_is_ragged(*pair) for pair in pairs):
        kept = weights > 0
        x, y, weights, groups = x[kept], y[kept], weights[kept], groups[kept]
        count = len(groups.unique())
    if count == 0:
        return mass
    if unbiased and count == 1:
        raise UserError(
            f"TraceMMD_ELBO needs two data points or more at site {pairs[0][1]['name']!r} for the "
            "unbiased estimator; got 1. Use larger batches (drop the last), or unbiased=False."
        )
    kernel = kernel or InverseMultiquadric()
    return mass * mmd_squared(x, y, kernel, groups=groups, weights=weights, unbiased=unbiased)


def _sample_pair(guide_site: Site, model_site: Site, beside: Sequence[Site]) -> tuple[Tensor, ...]:
    """Return the guide's values, fresh draws (`particles n dim` each), and `particles n`."""
    q, p = guide_site["fn"], model_site["fn"]
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    weights = _weighted(guide_site["value"].new_ones(batch), guide_site, model_site)
    value, draw = (_flat(v, f, batch) for v, f in ((guide_site["value"], q), (p(), p)))
    if beside:
        own = torch.cat([_flat(site["value"], site["fn"], batch) for site in beside], dim=-1)
        value, draw = torch.cat([value, own], dim=-1), torch.cat([draw, own], dim=-1)
    frames = guide_site["cond_indep_stack"]
    front = [frame.dim + len(batch) for frame in frames if frame.name == PARTICLES]
    value, draw, weights = (v.movedim(front, [0] * len(front)) for v in (value, draw, weights))
    particles, dim = weights.shape[0] if front else 1, value.shape[-1]
    return (
        value.reshape(particles, -1, dim),
        draw.reshape(particles, -1, dim),
        weights.reshape(particles, -1),
    )


def _flat(value: Tensor, fn: Any, batch: torch.Size) -> Tensor:
    """Values of a distribution with their event in one dimension, `*batch dim`."""
    return value.expand(batch + fn.event_shape).reshape(*batch, -1)


def _draws(fn: Any, batch: torch.Size) -> Tensor:
    """Draws of each data point, `*batch DRAWS dim`."""
    shape = torch.Size([DRAWS])
    return _flat(fn(shape), fn, shape + batch).movedim(0, -2)


def _weighted(numbers: Tensor, guide_site: Site, model_site: Site) -> Tensor:
    """Numbers of the data points times their scales; zero of those that are masked."""
    numbers = scale_and_mask(numbers, guide_site["scale"], guide_site["mask"])
    for fn in (guide_site["fn"], model_site["fn"]):
        if isinstance(fn, MaskedDistribution):
            numbers = scale_and_mask(numbers, mask=fn._mask)
    return numbers


def _is_ragged(guide_site: Site, model_site: Site) -> bool:
    """Whether data points of a site can differ in weight, or be left out."""
    masked = any(isinstance(site["fn"], MaskedDistribution) for site in (guide_site, model_site))
    scale = guide_site["scale"]
    return masked or guide_site["mask"] is not None or torch.is_tensor(scale) or scale == 0
