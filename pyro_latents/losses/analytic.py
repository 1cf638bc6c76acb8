"""The bound with divergences in closed form, without a look at the host in a step."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_latents.errors import UserError
from pyro_latents.losses.differentiable import DifferentiableELBO
from pyro_latents.programs import Site

Sites = dict[str, Site]
Terms = dict[str, Tensor]


class TraceAnalytic_ELBO(DifferentiableELBO):
    r"""The negative evidence lower bound, with each divergence in closed form where there is one.

    .. math:: -\mathbb{E}_q[\log p(x | z)] + \sum_s \mathrm{KL}[q_s \| p_s]

    The divergence of a site is analytic where torch knows it and each latent site that comes
    before it in the model also does so in the guide: otherwise a parent could depend on the
    site's own value, and the conditional KL at one draw is not the KL. Else it is taken by the
    draw. With sites in the same order this is `pyro.infer.TraceMeanField_ELBO`, in value and in
    gradient, but while Pyro's validation is off a step waits for no value of the device.

    Raises:
        UserError: at a batch, if the guide lacks a latent site of the model, or draws one that is
            not reparameterised.

    Example:
        >>> loss = TraceAnalytic_ELBO(max_plate_nesting=1)
        >>> svi = SVI(model, guide, optim, loss)  # doctest: +SKIP
    """

    # Sites that diverge from another site of the model than their own, or with None from none.
    _priors: Mapping[str, str | None] = {}

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a scalar tensor, in nats, summed over the data plate."""
        return sum(self.terms(model, guide, *args, **kwargs).values(), start=torch.zeros(()))

    def terms(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Terms:
        """Return the parts of the loss by name, each to be added: `SITE` and `kl_SITE`.

        `SITE` is the negative log-likelihood of an observed site.
        """
        return self._terms(list(self._get_traces(model, guide, args, kwargs)))

    def _terms(self, particles: list[tuple[Trace, Trace]]) -> Terms:
        """The terms of pairs of traces, the model's and the guide's of each particle."""
        terms: Terms = {}
        for traces in particles:
            for name, term in self._terms_of(*map(sites_of, traces)):
                terms[name] = terms.get(name, 0.0) + term / self.num_particles
        return terms

    def _terms_of(self, model: Sites, guide: Sites) -> Iterator[tuple[str, Tensor]]:
        latent = [name for name, site in model.items() if not site["is_observed"]]
        for name in latent:
            if name not in guide:
                raise UserError(f"the guide has no site {name!r}; it must sample all of {latent}.")
        for name, site in model.items():
            if site["is_observed"]:
                yield name, -site["log_prob_sum"]
                continue
            prior = self._priors.get(name, name)
            if prior is not None:
                before = latent[: latent.index(prior)]
                yield f"kl_{name}", self._kl(guide, name, model[prior], before)
        for name, site in guide.items():
            if name not in model:
                yield f"kl_{name}", self._log_posterior(name, site)

    def _kl(self, guide: Sites, name: str, prior: Site, before: list[str]) -> Tensor:
        """Return the divergence of a site of the guide from one of the model, after others."""
        site, p = guide[name], prior["fn"]
        log_q = self._log_posterior(name, site)
        order = list(guide)
        # Otherwise the prior may depend on the site's own value.
        if set(before) <= set(order[: order.index(name)]):
            try:
                kl = torch.as_tensor(kl_divergence(site["fn"], p))
            except NotImplementedError:
                pass
            else:
                kl = kl.expand(site["fn"].batch_shape)
                return scale_and_mask(kl, site["scale"], site["mask"]).sum()
        own = prior["name"] == name
        if own and "log_prob_sum" in prior:
            return log_q - prior["log_prob_sum"]
        # Another site's prior counts as often as the site itself does.
        place = prior if own else site
        log_p = scale_and_mask(p.log_prob(site["value"]), place["scale"], place["mask"])
        return log_q - log_p.sum()

    def _log_posterior(self, name: str, site: Site) -> Tensor:
        if not site["is_observed"] and not site["fn"].has_rsample:
            raise self._not_reparameterised(name, "guide", site)
        return site["log_prob_sum"]

    def _not_reparameterised(self, name: str, where: str, site: Site) -> UserError:
        return UserError(
            f"{type(self).__name__} needs a reparameterised distribution at site {name!r} of the "
            f"{where}; got {type(site['fn']).__name__}, whose draws have no gradient."
        )


def sites_of(trace: Trace) -> Sites:
    """The random sites of a trace that is rid of those of its plates, as an ELBO's are."""
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
