"""The bound with divergences in closed form, without a look at the host in a step."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_latents.errors import UserError
from pyro_latents.losses.differentiable import DifferentiableELBO
from pyro_latents.programs import Site, random_sites

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

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a scalar tensor, in nats, summed over the data plate."""
        return sum(self.terms(model, guide, *args, **kwargs).values(), start=torch.zeros(()))

    def terms(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Terms:
        """Return the parts of the loss by name, each to be added: `SITE` and `kl_SITE`.

        `SITE` is the negative log-likelihood of an observed site.
        """
        particles = list(self._get_traces(model, guide, args, kwargs))
        for model_trace, guide_trace in particles:
            self._check_names(model_trace, guide_trace)
        return self._terms(particles)

    def _terms(self, particles: list[tuple[Trace, Trace]]) -> Terms:
        """The terms of pairs of traces, the model's and the guide's of each particle."""
        terms: Terms = {}
        for model_trace, guide_trace in particles:
            for name, term in self._terms_of(model_trace, guide_trace):
                terms[name] = terms.get(name, 0.0) + term / self.num_particles
        return terms

    def _terms_of(self, model_trace: Trace, guide_trace: Trace) -> Iterator[tuple[str, Tensor]]:
        for name, site in random_sites(model_trace):
            if site["is_observed"]:
                yield from self._likelihoods(name, site)
            else:
                yield from self._divergences(name, model_trace, guide_trace)
        for name, site in random_sites(guide_trace):
            if name not in model_trace.nodes:
                yield f"kl_{name}", self._log_posterior(name, site)

    def _likelihoods(self, name: str, site: Site) -> Iterable[tuple[str, Tensor]]:
        yield name, -site["log_prob_sum"]

    def _divergences(
        self, name: str, model_trace: Trace, guide_trace: Trace
    ) -> Iterable[tuple[str, Tensor]]:
        yield f"kl_{name}", self._kl(name, name, model_trace, guide_trace)

    def _kl(self, name: str, prior: str, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """Return the divergence of a site of the guide from a site of the model."""
        site: Site = guide_trace.nodes[name]
        prior_site: Site = model_trace.nodes[prior]
        log_q, p = self._log_posterior(name, site), prior_site["fn"]
        if _parents_come_first(name, prior, model_trace, guide_trace):
            try:
                kl = torch.as_tensor(kl_divergence(site["fn"], p))
            except NotImplementedError:
                pass
            else:
                kl = kl.expand(site["fn"].batch_shape)
                return scale_and_mask(kl, site["scale"], site["mask"]).sum()
        if prior == name:
            return log_q - prior_site["log_prob_sum"]
        return log_q - scale_and_mask(p.log_prob(site["value"]), site["scale"], site["mask"]).sum()

    def _log_posterior(self, name: str, site: Site) -> Tensor:
        if not site["is_observed"] and not site["fn"].has_rsample:
            raise self._not_reparameterised(name, "guide", site)
        return site["log_prob_sum"]

    def _check_names(self, model_trace: Trace, guide_trace: Trace) -> None:
        latent = [name for name, site in random_sites(model_trace) if not site["is_observed"]]
        for name in latent:
            if name not in guide_trace.nodes:
                raise UserError(f"the guide has no site {name!r}; it must sample all of {latent}.")

    def _not_reparameterised(self, name: str, where: str, site: Site) -> UserError:
        return UserError(
            f"{type(self).__name__} needs a reparameterised distribution at site {name!r} of the "
            f"{where}; got {type(site['fn']).__name__}, whose draws have no gradient."
        )


def _parents_come_first(name: str, prior: str, model_trace: Trace, guide_trace: Trace) -> bool:
    """Whether all that `prior` can depend on in the model comes before `name` in the guide."""
    position = {other: i for i, other in enumerate(guide_trace.nodes)}
    for other, site in random_sites(model_trace):
        if other == prior:
            break
        if not site["is_observed"] and position[other] >= position[name]:
            return False
    return True
