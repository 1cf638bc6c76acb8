"""The objective that mixes KL divergences with maximum mean discrepancies, site by site."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.distributions import Distribution, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_latents.errors import UserError
from pyro_latents.losses.differentiable import DifferentiableELBO
from pyro_latents.losses.kernels import InverseMultiquadric, Kernel, mmd_squared

PARTICLES = "num_particles_vectorized"  # the plate that `pyro.infer.ELBO` wraps around both
Site = dict[str, Any]


class TraceMMD_ELBO(DifferentiableELBO):
    r"""An ELBO in which named sites have a maximum mean discrepancy in the place of their KL.

    .. math:: -\mathbb{E}_q[\log p(x | z)] + \sum_{s \notin S} \mathrm{KL}[q_s \| p_s]
              + \sum_{s \in S} \lambda_s N \, \mathrm{MMD}^2[q_s, p_s]

    At a site :math:`s \in S` the first sample is the guide's values, one a data point, the second
    fresh draws from the model's own conditional *given the guide's values at the parents* (the
    distribution of the replayed model). So the aggregate over the batch is compared, not the
    distribution of each data point: a posterior may stay narrow. Only draws are needed of the
    two, no density: a guide may push noise through a network and sample a ``Delta``.

    **Scale.** A loss is a sum over the data plate, so the squared discrepancy, a number in
    [-2, 2], is multiplied by :math:`N = \sum` of the site's scales over its unmasked data points:
    the batch size in an unscaled plate, the data size in a subsampled one. Reported per data
    point, as the trainer does, the term is :math:`\lambda_s \mathrm{MMD}^2`. A weight of zero
    leaves the site without a divergence (and draws nothing).

    **Samples.** All plates of the site are the sample dimension, and particles add to it. The
    unbiased estimator passes over pairs of the same data point, as particles of one data point
    are dependent; at a site without a plate the particles themselves are the data points.
    Masked data points are left out, and a scale per data point weighs its pairs.

    **Other sites** keep their KL: analytic where torch knows it and each latent site that comes
    before it in the model also does so in the guide, as otherwise a parent could depend on the
    site's own value, and the conditional KL at one draw is not the KL; else by the draw. With no
    site named, and sites in the same order, this is `pyro.infer.TraceMeanField_ELBO`.

    `pyro.infer.Trace_MMD` differs: only particles are samples there, a minibatch is flattened
    into features, and draws are compared with the model run from its start.

    Args:
        mmd_scale: The weight of each site with a discrepancy, by name.
        kernel: A kernel of `pyro_latents.losses.kernels`; by default the inverse multiquadric
            mixture scaled with the dimension.
        prior_of: Sites whose KL is taken to the model's distribution at another site, by name:
            ``{"z0": "z"}`` is `KL[q(z0 | x) || p(z)]`, for a site that the model only copies.
        unbiased: Whether to use the unbiased estimator, which needs two data points.
        num_particles: Draws per data point that the estimate is made of.
        max_plate_nesting: As in `pyro.infer.ELBO`.
        vectorize_particles: Whether the particles are drawn in one pass.
        retain_graph: Whether ``SVI.step`` keeps the graph.

    Raises:
        UserError: at construction, if a weight is negative; at the first batch, if a name is
            that of no latent site, a site is not reparameterised or the guide has no such site,
            if the unbiased estimator meets fewer than two data points, or the kernel is not
            finite (looked at while Pyro's validation is enabled).

    References:
        No Representation without Transformation (Giannone et al., 2019), equation (3)
        InfoVAE (Zhao et al., 2017), https://arxiv.org/abs/1706.02262

    Example:
        >>> loss = TraceMMD_ELBO(mmd_scale={"z": 10.0})
        >>> svi = SVI(model, guide, optim, loss)  # doctest: +SKIP
    """

    def __init__(
        self,
        mmd_scale: Mapping[str, float],
        *,
        kernel: Kernel | None = None,
        prior_of: Mapping[str, str] | None = None,
        unbiased: bool = True,
        num_particles: int = 1,
        max_plate_nesting: float = float("inf"),
        vectorize_particles: bool = False,
        retain_graph: bool | None = None,
    ) -> None:
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
            retain_graph=retain_graph,
        )
        for name, weight in mmd_scale.items():
            if not weight >= 0:
                raise UserError(f"TraceMMD_ELBO expects weights >= 0; got {name}: {weight}.")
        self.prior_of = dict(prior_of or {})
        for name in sorted(set(mmd_scale) & set(self.prior_of)):
            raise UserError(f"TraceMMD_ELBO: site {name!r} has an MMD; take it out of prior_of.")
        self.mmd_scale = dict(mmd_scale)
        self.kernel = kernel or InverseMultiquadric()
        self.unbiased = unbiased

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a scalar tensor, in nats, summed over the data plate."""
        return sum(self.terms(model, guide, *args, **kwargs).values())

    def terms(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return the parts of the loss by name, each to be added: `SITE`, `kl_SITE`, `mmd_SITE`.

        `SITE` is the negative log-likelihood of an observed site.
        """
        terms: dict[str, Tensor] = {}
        pairs: dict[str, list[tuple[Site, Site]]] = {}
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            self._check_names(model_trace, guide_trace)
            for name, site in _samples(model_trace).items():
                if site["is_observed"]:
                    key, term = name, -site["log_prob_sum"]
                elif name in self.mmd_scale:
                    pairs.setdefault(name, []).append((guide_trace.nodes[name], site))
                    continue
                else:
                    key, term = f"kl_{name}", self._kl(name, model_trace, guide_trace)
                terms[key] = terms.get(key, 0.0) + term / self.num_particles
            for name, site in _samples(guide_trace).items():
                if name not in model_trace.nodes:
                    key, term = f"kl_{name}", _entropy_term(name, site)
                    terms[key] = terms.get(key, 0.0) + term / self.num_particles
        for name, both in pairs.items():
            if self.mmd_scale[name]:
                terms[f"mmd_{name}"] = self.mmd_scale[name] * self._mmd(name, both)
        return terms

    def _kl(self, name: str, model_trace: Trace, guide_trace: Trace) -> Tensor:
        site = guide_trace.nodes[name]
        entropy_term = _entropy_term(name, site)
        source = self.prior_of.get(name, name)
        prior = model_trace.nodes[source]["fn"]
        if _parents_come_first(name, source, model_trace, guide_trace):
            try:
                kl = kl_divergence(site["fn"], prior)
            except NotImplementedError:
                pass
            else:
                kl = torch.as_tensor(kl).expand(site["fn"].batch_shape)
                return scale_and_mask(kl, site["scale"], site["mask"]).sum()
        if source == name:
            return entropy_term - model_trace.nodes[name]["log_prob_sum"]
        log_prior = scale_and_mask(prior.log_prob(site["value"]), site["scale"], site["mask"])
        return entropy_term - log_prior.sum()

    def _mmd(self, name: str, pairs: list[tuple[Site, Site]]) -> Tensor:
        """Return `N MMD^2` of the guide's values and draws of the model, particles pooled."""
        samples = [_sample_pair(name, guide_site, site) for guide_site, site in pairs]
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
        if self.unbiased and count == 1:
            raise UserError(
                f"TraceMMD_ELBO needs two data points or more at site {name!r} for the unbiased "
                "estimator; got 1. Use larger batches (drop the last), or unbiased=False."
            )
        squared = mmd_squared(
            x, y, self.kernel, groups=groups, weights=weights, unbiased=self.unbiased
        )
        if is_validation_enabled() and not bool(torch.isfinite(squared)):
            raise UserError(
                f"TraceMMD_ELBO: the kernel is not finite at site {name!r}; the guide's values "
                f"reach {x.detach().abs().max():.3g} and the model's draws "
                f"{y.detach().abs().max():.3g}. Lower the learning rate or check the data."
            )
        return mass * squared

    def _check_names(self, model_trace: Trace, guide_trace: Trace) -> None:
        latent = [n for n, s in _samples(model_trace).items() if not s["is_observed"]]
        for name in [*self.mmd_scale, *self.prior_of, *self.prior_of.values()]:
            if name not in latent:
                what = "observed" if name in model_trace.nodes else "not in the model"
                raise UserError(
                    f"TraceMMD_ELBO names the site {name!r}, which is {what}; the latent sites "
                    f"are {', '.join(latent) or 'none'}."
                )
        for name in latent:
            if name not in guide_trace.nodes:
                raise UserError(f"the guide has no site {name!r}; it must sample all of {latent}.")


def _samples(trace: Trace) -> dict[str, Site]:
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


def _parents_come_first(name: str, source: str, model_trace: Trace, guide_trace: Trace) -> bool:
    """Whether all that `source` can depend on in the model comes before `name` in the guide."""
    position = {other: i for i, other in enumerate(guide_trace.nodes)}
    for other, site in _samples(model_trace).items():
        if other == source:
            break
        if not site["is_observed"] and position[other] >= position[name]:
            return False
    return True


def _is_ragged(guide_site: Site, model_site: Site) -> bool:
    """Whether data points of a site can differ in weight, or be left out."""
    masked = any(isinstance(site["fn"], MaskedDistribution) for site in (guide_site, model_site))
    scale = guide_site["scale"]
    return masked or guide_site["mask"] is not None or torch.is_tensor(scale) or scale == 0


def _entropy_term(name: str, guide_site: Site) -> Tensor:
    if not guide_site["fn"].has_rsample:
        raise _not_reparameterised(name, "guide", guide_site["fn"])
    return guide_site["score_parts"].entropy_term.sum()


def _not_reparameterised(name: str, where: str, fn: Distribution) -> UserError:
    return UserError(
        f"TraceMMD_ELBO needs a reparameterised distribution at site {name!r} of the {where}; "
        f"got {type(fn).__name__}, whose draws have no gradient."
    )


def _sample_pair(name: str, guide_site: Site, model_site: Site) -> tuple[Tensor, Tensor, Tensor]:
    """Return the guide's values, fresh draws (`particles n dim` each), and `particles n`."""
    q, p = guide_site["fn"], model_site["fn"]
    if not q.has_rsample:
        raise _not_reparameterised(name, "guide", q)
    if not p.has_rsample and p.log_prob(guide_site["value"].detach()).requires_grad:
        raise _not_reparameterised(name, "model", p)
    value, draw = guide_site["value"], p.rsample() if p.has_rsample else p.sample()
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    weights = scale_and_mask(value.new_ones(batch), guide_site["scale"], guide_site["mask"])
    for fn in (q, p):
        if isinstance(fn, MaskedDistribution):
            weights = scale_and_mask(weights, mask=fn._mask)
    dims = [f.dim for f in guide_site["cond_indep_stack"] if f.name == PARTICLES]
    value, draw = (v.expand(batch + f.event_shape) for v, f in ((value, q), (draw, p)))
    value, draw = (v.reshape(*batch, -1) for v in (value, draw))
    front = [dim + len(batch) for dim in dims]
    value, draw, weights = (v.movedim(front, [0] * len(front)) for v in (value, draw, weights))
    particles = weights.shape[0] if front else 1
    dim = value.shape[-1]
    return (
        value.reshape(particles, -1, dim),
        draw.reshape(particles, -1, dim),
        weights.reshape(particles, -1),
    )
