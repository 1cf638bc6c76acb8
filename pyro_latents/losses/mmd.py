"""The objective that mixes KL divergences with maximum mean discrepancies, site by site."""

from collections.abc import Callable, Mapping, Sequence, Sized
from math import inf
from typing import Any, Literal, get_args

import pyro
import torch
from pyro import poutine
from pyro.infer.inspect import TrackProvenance
from pyro.infer.util import is_validation_enabled
from pyro.ops.provenance import get_provenance
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.losses.analytic import Sites, Terms, TraceAnalytic_ELBO, sites_of
from pyro_latents.losses.discrepancies import across, within
from pyro_latents.losses.kernels import Kernel
from pyro_latents.programs import Site
from pyro_latents.text import did_you_mean

Compared = Literal["conditional", "marginal", "joint"]


class TraceMMD_ELBO(TraceAnalytic_ELBO):
    r"""An ELBO in which named sites have a maximum mean discrepancy in the place of their KL.

    .. math:: -\mathbb{E}_q[\log p(x | z)] + \sum_{s \notin S} \mathrm{KL}[q_s \| p_s]
              + \sum_{s \in S} \lambda_s N \, \mathrm{MMD}^2[q_s, p_s]

    **What is compared.** A site that has no parents among the sites of the model is compared by
    its aggregate: the guide's values over the data plate with as many draws of the prior, so that
    a single posterior may stay narrow. A site with parents is compared within each data point:
    the guide's distribution there with the model's conditional at the guide's values of the
    parents, and the mean is taken over the data points. That is exact, without draws or noise,
    where both are normals with independent coordinates, or points; otherwise it is estimated by
    several draws of each data point. Only draws are needed, no density: a guide may push noise
    through a network and sample a ``Delta``. The other sites keep their KL, as in
    `TraceAnalytic_ELBO`.

    Other readings of a site with parents are options, for comparison. ``marginal`` takes its
    aggregate, like that of a site without parents: whatever belongs to which data point is lost,
    and a transformation is not told from its inverse. ``joint`` takes the aggregate of the site
    and its parents together: what a batch tells of a law in as many dimensions is little.

    **Scale.** A loss is a sum over the data plate, so the squared discrepancy, a number in
    [-2, 2], is multiplied by :math:`N = \sum` of the site's scales over its unmasked data points:
    the batch size in an unscaled plate, the data size in a subsampled one. Reported per data
    point, as the trainer does, the term is :math:`\lambda_s \mathrm{MMD}^2`. A weight of zero
    leaves the site without a divergence (and draws nothing).

    **Aggregates.** All plates of the site are the sample dimension, and particles add to it. The
    unbiased estimator passes over pairs of the same data point, as particles of one data point
    are dependent; at a site without a plate the particles themselves are the data points.
    Masked data points are left out, and a scale per data point weighs its pairs.

    **Copies.** ``copies={"z0": "z"}`` says that a site is its source under the identity. So its
    KL is taken to the source's prior, and what is observed given it is scored once more, at the
    source's value:

    .. math:: \mathcal{F} = -\mathbb{E}_q[\log p(x | z)] + \mathrm{KL}[q(z_0 | x) \| p(z)]

    is added to :math:`-\mathbb{E}_q[\log p(x | z_0)]`, and the model need not observe ``x``
    twice. The model runs once, with a dimension left of its plates for the two values, as
    in enumeration: its networks must take leading dimensions.

    **Terms**, by name: those of `TraceAnalytic_ELBO`, `mmd_SITE`, and `SITE_indirect` of what is
    scored once more.

    `pyro.infer.Trace_MMD` differs: only particles are samples there, a minibatch is flattened
    into features, and draws are compared with the model run from its start.

    Args:
        mmd_scale: The weight of each site with a discrepancy, by name.
        compare: What is compared at sites with parents: ``conditional``, ``marginal`` or
            ``joint``.
        kernel: A kernel of `pyro_latents.losses.kernels`. By default the Gaussian mixture, where
            it has a closed form, and the inverse multiquadric one for draws; both are scaled with
            the dimension.
        copies: The sources of sites that are copies, by name.
        unbiased: Whether to use the unbiased estimator of aggregates, which needs two data points.
        **options: As in `pyro.infer.ELBO`: ``num_particles``, ``vectorize_particles``,
            ``max_plate_nesting`` and ``retain_graph``.

    Raises:
        UserError: at construction, if a weight is negative, a site is named twice, or there is
            no such comparison; at the first batch, if a name is that of no latent site, a site is
            not reparameterised or the guide has no such site, if a latent site hangs on a copy,
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
        compare: Compared = "conditional",
        kernel: Kernel | None = None,
        copies: Mapping[str, str] | None = None,
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
        for name in sorted(self.copies.keys() & mmd_scale.keys()):
            raise UserError(f"TraceMMD_ELBO: site {name!r} has an MMD; take it out of copies.")
        if compare not in get_args(Compared):
            near = did_you_mean(compare, get_args(Compared))
            raise UserError(f"TraceMMD_ELBO cannot compare what is {compare!r}: {near}")
        self.mmd_scale = dict(mmd_scale)
        self.compare = compare
        self._priors = {**self.copies, **dict.fromkeys(mmd_scale)}
        self.kernel = kernel
        self.unbiased = unbiased
        # Of the model that was seen last.
        self._parents: tuple[Any, dict[str, list[str]]] | None = None

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        if not self.copies:
            return super()._get_trace(model, guide, args, kwargs)
        if self.max_plate_nesting == inf:
            self._guess_max_plate_nesting(model, guide, args, kwargs)
        drawn = poutine.trace(guide).get_trace(*args, **kwargs)
        both = drawn.copy()
        values: Any = drawn.nodes
        for name in self.copies.keys() & values.keys():
            if self.copies[name] in values:
                both.nodes[name] = self._with_row(values[name], values[self.copies[name]]["value"])
        scored = poutine.trace(poutine.replay(model, both)).get_trace(*args, **kwargs)
        model_trace, guide_trace = prune_subsample_sites(scored), prune_subsample_sites(drawn)
        model_trace.compute_log_prob(lambda name, site: site["is_observed"])
        guide_trace.compute_log_prob()
        if is_validation_enabled():
            nesting = int(self.max_plate_nesting)
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
            weight = self.mmd_scale.get(name, 0.0)
            if weight:
                parents = self.parents(model, *args, **kwargs)[name]
                terms[f"mmd_{name}"] = weight * self._mmd(name, parents, particles)
            elif site["is_observed"] and self._has_rows(site["log_prob"].shape):
                rows = [trace.nodes[name]["log_prob"] for trace, _ in particles]
                own, second = (
                    -sum(row[i].sum() for row in rows) / self.num_particles for i in (0, 1)
                )
                terms |= {name: own, f"{name}_indirect": second}
        return terms

    def parents(self, model: Callable, *args: Any, **kwargs: Any) -> dict[str, list[str]]:
        """Return the names of the sites that each site is drawn given, in their order.

        They are found by a run of the model at its own draws, once for each model.
        """
        if self._parents is None or self._parents[0] != model:
            with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
                with TrackProvenance():
                    sites = sites_of(poutine.trace(model).get_trace(*args, **kwargs))
            found = {}
            for name in self.mmd_scale.keys() & sites.keys():
                density = sites[name]["fn"].log_prob(sites[name]["value"])
                # Parameters of the global store are no sites.
                given = get_provenance(density) - {name}
                found[name] = [parent for parent in sites if parent in given]
            self._parents = model, found
        return self._parents[1]

    def _mmd(
        self, name: str, parents: list[str], particles: Sequence[tuple[Trace, Trace]]
    ) -> Tensor:
        """Return `N MMD^2` of a site, in the reading that is asked for."""
        pairs = [(guide.nodes[name], model.nodes[name]) for model, guide in particles]
        for pair in pairs:
            self._check_draws(name, *pair)
        if parents and self.compare == "conditional":
            total = sum(within(*pair, self.kernel) for pair in pairs) / self.num_particles
        else:
            joint = parents if self.compare == "joint" else []
            beside = [
                [guide.nodes[parent] for parent in joint if parent in guide.nodes]
                for _, guide in particles
            ]
            total = across(pairs, self.kernel, beside=beside, unbiased=self.unbiased)
        self._check_finite(name, total, *pairs[0])
        return total

    def _check_draws(self, name: str, guide_site: Site, model_site: Site) -> None:
        """See that both have draws with a gradient, where there is something to learn."""
        q, p = guide_site["fn"], model_site["fn"]
        if not q.has_rsample:
            raise self._not_reparameterised(name, "guide", guide_site)
        if not p.has_rsample and p.log_prob(guide_site["value"].detach()).requires_grad:
            raise self._not_reparameterised(name, "model", model_site)

    def _check_finite(self, name: str, total: Tensor, guide_site: Site, model_site: Site) -> None:
        if is_validation_enabled() and not bool(torch.isfinite(total)):
            reach = [
                site["value"].detach().abs().max().item() for site in (guide_site, model_site)
            ]
            raise UserError(
                f"TraceMMD_ELBO: the kernel is not finite at site {name!r}, whose values reach "
                f"{max(reach):.3g}. Lower the learning rate or check the data."
            )

    def _check_names(self, model: Sites) -> None:
        latent = {name: site for name, site in model.items() if not site["is_observed"]}
        for name in [*self.mmd_scale, *self.copies, *self.copies.values()]:
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
                    f"the latent site {name!r} hangs on one of copies, {list(self.copies)}; only "
                    "what is observed may."
                )

    def _has_rows(self, batch: Sized) -> bool:
        return bool(self.copies) and len(batch) > self.max_plate_nesting
