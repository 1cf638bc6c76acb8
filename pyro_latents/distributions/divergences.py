"""Closed forms of divergences that PyTorch and Pyro lack; importing this module registers them."""

import math

from pyro.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal
from torch import Tensor
from torch.distributions import register_kl


def kl_to_independent_normals(
    p: MultivariateNormal | LowRankMultivariateNormal, q: Independent
) -> Tensor:
    r"""Return the divergence from a multivariate normal to independent ones, in nats.

    .. math:: KL(p, q) = -H(p) + \sum_i \log \sigma_i + \frac{1}{2} \Big( \log 2 \pi +
              \frac{\mathrm{Var}_p[z_i] + (E_p[z_i] - \mu_i)^2}{\sigma_i^2} \Big)

    Args:
        p: Of event shape `(dim,)`.
        q: Normals of the same event shape.

    Raises:
        NotImplementedError: if q is of anything but normals; losses then take a sample.
    """
    normal = q.base_dist
    if not isinstance(normal, Normal) or q.event_shape != p.event_shape:
        raise NotImplementedError("only normals along the last dimension have a closed form.")
    squares = (p.variance + (p.mean - normal.loc).square()) / normal.scale.square()
    cross = normal.scale.log() + 0.5 * (math.log(2 * math.pi) + squares)
    return cross.sum(-1) - p.entropy()


for _kind in (MultivariateNormal, LowRankMultivariateNormal):
    register_kl(_kind, Independent)(kl_to_independent_normals)
