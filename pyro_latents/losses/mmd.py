"""The objective that mixes KL divergences with maximum mean discrepancies, site by site."""

from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from math import inf
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.losses.analytic import Sites, Terms, TraceAnalytic_ELBO, sites_of
from pyro_latents.losses.kernels import InverseMultiquadric, Kernel, mmd_squared
from pyro_latents.programs import Site, centre

PARTICLES = "num_particles_vectorized"  # the plate that `pyro.infer.ELBO` wraps around both


class TraceMMD_ELBO(TraceAnalytic_ELBO):
    r"""An ELBO in which named sites have a maximum mean discrepancy in the place of their KL.

    .. math:: -\mathbb{E}_q[\log p(x | z)] + \sum_{s \notin S} \mathrm{KL}[q_s \| p_s]
              + \sum_{s \in S} \lambda_s N \, \mathrm{MMD}^2[q_s, p_s]

    At a site :math:`s \in S` the first sample is the guide's values, one a data point, the second
    fresh draws from the model's own conditional *given the guide's values at the parents* (the
    distribution of the replayed model). So the aggregate over the batch is compared, not the
    distribution of each data point: a posterior may stay narrow. Only draws are needed of the
    two, no density: a guide may push noise through a network and sample a ``Delta``. The other
    sites keep their KL, as in `TraceAnalytic_ELBO`.

    **Scale.** A loss is a sum over the data plate, so the squared discrepancy, a number in
    [-2, 2], is multiplied by :math:`N = \sum` of the site's scales over its unmasked data points:
    the batch size in an unscaled plate, the data size in a subsampled one. Reported per data
    point, as the trainer does, the term is :math:`\lambda_s \mathrm{MMD}^2`. A weight of zero
    leaves the site without a divergence (and draws nothing).

    **Samples.** All plates of the site are the sample dimension, and particles add to it. The
    unbiased estimator passes over pairs of the same data point, as particles of one data point
    are dependent; at a site without a plate the particles themselves are the data points.
    Masked data points are left out, and a scale per data point weighs its pairs.

    **Copies.** ``copies={"z0": "z"}`` says that a site is its source under the identity. So its
    KL is taken to the source's prior, and what is observed given it is scored once more, at the
    source's value:

    .. math:: \mathcal{F} = -\mathbb{E}_q[\log p(x | z)] + \mathrm{KL}[q(z_0 | x) \| p(z)]

    is added to :math:`-\mathbb{E}_q[\log p(x | z_0)]`, and the model need not observe ``x``
    twice. Sites named in ``indirect`` keep their divergence; what is observed given them is
    scored once more at the centre of the model's own conditional, that is given their parents
    alone. Both run the model once, with a dimension left of its plates for the two values, as
    enumeration does: its networks must take leading dimensions.

    **Terms**, by name: those of `TraceAnalytic_ELBO`, `mmd_SITE`, and `SITE_indirect` of what is
    scored once more.

    `pyro.infer.Trace_MMD` differs: only particles are samples there, a minibatch is flattened
    into features, and draws are compared with the model run from its start.

    Args:
        mmd_scale: The weight of each site with a discrepancy, by name.
        kernel: A kernel of `pyro_latents.losses.kernels`; by default the inverse multiquadric
            mixture scaled with the dimension.
        copies: The sources of sites that are copies, by name.
        indirect: The names of the sites given whose parents observations are scored as well.
        unbiased: Whether to use the unbiased estimator, which needs two data points.
        **options: As in `pyro.infer.ELBO`: ``num_particles``, ``vectorize_particles``,
            ``max_plate_nesting`` and ``retain_graph``.

    Raises:
        UserError: at construction, if a weight is negative or a site is named twice; at the first
            batch, if a name is that of no latent site, a site is not reparameterised or the guide
            has no such site, if a latent site hangs on one with two values, if the unbiased
            estimator meets fewer than two data points, or the kernel is not finite (looked at
            while Pyro's validation is enabled).

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
        copies: Mapping[str, str] | None = None,
        indirect: Collection[str] = (),
        unbiased: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, weight in mmd_scale.items():
            if not 0 <= weight < inf:
                raise UserError(
                    f"TraceMMD_ELBO expects finite weights >= 0; got {name}: {weight}."
                )
        self.copies = dict(copies or {})
        self.indirect = tuple(indirect)
        for what, names in (("an MMD", mmd_scale), ("an indirect term", self.indirect)):
            for name in sorted(self.copies.keys() & set(names)):
                raise UserError(f"TraceMMD_ELBO: site {name!r} has {what}; take it out of copies.")
        self.mmd_scale = dict(mmd_scale)
        self._priors = {**self.copies, **dict.fromkeys(mmd_scale)}
        self.kernel = kernel or InverseMultiquadric()
        self.unbiased = unbiased

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        if not self.copies and not self.indirect:
            return super()._get_trace(model, guide, args, kwargs)
        if self.max_plate_nesting == inf:
            self._guess_max_plate_nesting(model, guide, args, kwargs)

        def replayed(trace: Trace) -> Trace:
            return poutine.trace(poutine.replay(model, trace)).get_trace(*args, **kwargs)

        drawn = poutine.trace(guide).get_trace(*args, **kwargs)
        both = drawn.copy()
        values: Any = drawn.nodes
        seconds = {n: values[s]["value"] for n, s in self.copies.items() if s in drawn}
        if self.indirect:
            once: Any = replayed(drawn).nodes
            seconds |= {name: centre(once[name]["fn"]) for name in self.indirect if name in once}
        for name in seconds.keys() & values.keys():
            both.nodes[name] = self._with_row(values[name], seconds[name])
        scored, nesting = replayed(both), int(self.max_plate_nesting)
        model_trace, guide_trace = prune_subsample_sites(scored), prune_subsample_sites(drawn)
        model_trace.compute_log_prob(lambda name, site: site["is_observed"])
        guide_trace.compute_log_prob()
        if is_validation_enabled():
            check_model_guide_match(scored, drawn, nesting)
            for site in (*model_trace.nodes.values(), *guide_trace.nodes.values()):
                if "log_prob" in site:
                    check_site_shape(site, nesting)
        return model_trace, guide_trace

    def _with_row(self, site: Site, second: Tensor) -> Any:
        """The site with a second value, in a dimension left of all plates."""
        values = torch.broadcast_tensors(site["value"], second)
        event_dims = site["fn"].event_dim
        ones = (1,) * (int(self.max_plate_nesting) + event_dims - values[0].dim())
        value = torch.stack(values)
        return {**site, "value": value.reshape(2, *ones, *value.shape[1:])}

    def terms(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Terms:
        """Return the parts of the loss by name, each to be added."""
        particles = list(self._get_traces(model, guide, args, kwargs))
        process = sites_of(particles[0][0])
        self._check_names(process)
        terms = self._terms(particles)
        for name, site in process.items():
            sites = [(guide.nodes.get(name), model.nodes[name]) for model, guide in particles]
            weight = self.mmd_scale.get(name, 0.0)
            if weight:
                terms[f"mmd_{name}"] = weight * self._mmd(name, sites)
            elif site["is_observed"] and self._has_rows(site["log_prob"].shape):
                own, second = (
                    -sum(seen["log_prob"][row].sum() for _, seen in sites) / self.num_particles
                    for row in (0, 1)
                )
                terms |= {name: own, f"{name}_indirect": second}
        return terms

    def _mmd(self, name: str, pairs: Sequence[tuple[Site, Site]]) -> Tensor:
        """Return `N MMD^2` of the guide's values and draws of the model, particles pooled."""
        samples = [self._sample_pair(name, *pair) for pair in pairs]
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

    def _sample_pair(self, name: str, guide_site: Site, model_site: Site) -> tuple[Tensor, ...]:
        """Return the guide's values, fresh draws (`particles n dim` each), and `particles n`."""
        q, p = guide_site["fn"], model_site["fn"]
        value = guide_site["value"]
        if not q.has_rsample:
            raise self._not_reparameterised(name, "guide", guide_site)
        if not p.has_rsample and p.log_prob(value.detach()).requires_grad:
            raise self._not_reparameterised(name, "model", model_site)
        draw = p.rsample() if p.has_rsample else p.sample()
        batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
        weights = scale_and_mask(value.new_ones(batch), guide_site["scale"], guide_site["mask"])
        for fn in (q, p):
            if isinstance(fn, MaskedDistribution):
                weights = scale_and_mask(weights, mask=fn._mask)
        value, draw = (
            v.expand(batch + f.event_shape).reshape(*batch, -1) for v, f in ((value, q), (draw, p))
        )
        frames = guide_site["cond_indep_stack"]
        front = [frame.dim + len(batch) for frame in frames if frame.name == PARTICLES]
        value, draw, weights = (v.movedim(front, [0] * len(front)) for v in (value, draw, weights))
        particles, dim = weights.shape[0] if front else 1, value.shape[-1]
        return (
            value.reshape(particles, -1, dim),
            draw.reshape(particles, -1, dim),
            weights.reshape(particles, -1),
        )

    def _check_names(self, model: Sites) -> None:
        latent = {name: site for name, site in model.items() if not site["is_observed"]}
        for name in [*self.mmd_scale, *self.copies, *self.copies.values(), *self.indirect]:
            if name not in latent:
                what = "observed" if name in model else "not in the model"
                raise UserError(
                    f"TraceMMD_ELBO names the site {name!r}, which is {what}; the latent sites "
                    f"are {', '.join(latent) or 'none'}."
                )
        order = list(latent)
        for name, source in self.copies.items():
            if order.index(source) >= order.index(name):
                raise UserError(f"site {name!r} is no copy of {source!r}: that must come first.")
        for name, site in latent.items():
            if self._has_rows(site["fn"].batch_shape):
                raise UserError(
                    f"the latent site {name!r} hangs on one of copies or indirect, "
                    f"{[*self.copies, *self.indirect]}; only what is observed may."
                )

    def _has_rows(self, batch: Sized) -> bool:
        return bool(self.copies or self.indirect) and len(batch) > self.max_plate_nesting


def _is_ragged(guide_site: Site, model_site: Site) -> bool:
    """Whether data points of a site can differ in weight, or be left out."""
    masked = any(isinstance(site["fn"], MaskedDistribution) for site in (guide_site, model_site))
    scale = guide_site["scale"]
    return masked or guide_site["mask"] is not None or torch.is_tensor(scale) or scale == 0
