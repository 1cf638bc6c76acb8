"""The objective that marginalises auxiliary sites by their maximum."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.losses.differentiable import DifferentiableELBO
from pyro_latents.losses.maximisers import LOSS, Maximised, Values
from pyro_latents.programs import Site, random_sites
from pyro_latents.text import did_you_mean


@dataclass(frozen=True)
class Held:
    """What one evaluation of the objective found, to evaluate it again at other parameters.

    Attributes:
        values: The guide's draws at the sites that are not maximised, detached, by name.
        model_maxima: The maximisers of the model's sites, by name.
        guide_maxima: Those of the guide's sites.
    """

    values: Values
    model_maxima: Values
    guide_maxima: Values


class TraceMax_ELBO(DifferentiableELBO):
    r"""An ELBO in which auxiliary sites are marginalised by their maximum.

    With auxiliary variables c in the guide, and c' in the model,

    .. math::
        \mathcal{L} = \mathbb{E}_q \Big[ \log p(x | z) + \max_{c'} \log p(z | c') p(c')
                      - \max_c \log q(z | c, x) q(c) \Big], \qquad
        z \sim \int q(z | c, x) q(c) \, dc.

    A site is auxiliary if it says so: ``infer={"maximize": solver}``. Auxiliary sites of model
    and guide are separate variables even where they share a name, and either may have none.

    **Solver.** ``solver(values)`` gets the values of the sites that are not auxiliary, by name,
    and returns the maximiser, in the shape of the site's values. It is called while the program
    runs, so that a closure sees what led to the site. It runs without gradient and its answer is
    a constant: the density is evaluated at it with gradient through everything else. If the
    solver maximises the very density (all weights 1), that is the gradient of the maximum, by the
    envelope theorem; if not, it is the method's definition. Sites with
    ``infer={"maximize": None}`` climb by their gradient, together and from a draw.

    **Several sites at once.** Sites whose maximum is a joint one name the same solver, which
    returns a dictionary of values by site. It is asked once in a run, at the first of them.

    **Networks.** A network that helps a solver has a loss of its own:
    ``infer={"maximize": solver, "maximize_loss": loss}``. ``loss(values, answer)`` is called with
    gradient, after the solver and with what it has answered, and returns a loss for each data
    point. Their sum is one more term, ``maximiser``, and all that the network learns from.

    **Sums.** Sites of the model with ``infer={"enumerate": "parallel"}`` are summed over exactly,
    each term with its own maximum. All that depends on them must lie in their plates.

    **Weights.** The log-densities of a site are multiplied by its weight, inside of the sum: the
    phases of a training weigh the terms of one program differently.

    With no auxiliary site and no weights this is `pyro.infer.Trace_ELBO` for reparameterised
    guides. An expectation over auxiliary draws is taken by sampling, so that every site that
    the guide draws must be reparameterised (checked).

    Args:
        model_weights: Weights of the model's sites, by name; 1 if not named.
        guide_weights: Weights of the guide's sites.
        num_particles: Draws per data point that the estimate is made of.
        max_plate_nesting: As in `pyro.infer.ELBO`; must be given if a site is enumerated.
        vectorize_particles: Whether the particles are drawn in one pass.
        retain_graph: Whether ``SVI.step`` keeps the graph.

    Raises:
        UserError: at a batch, if the guide lacks a site of the model or draws one that is not
            reparameterised, a weight names no site, or a maximiser is not finite, has a wrong
            shape, or answers for other sites than those that name it.

    References:
        Variational Autoencoder with Learned Latent Structure (Connor, Canal, Rozell, 2020),
        equations (6), (10) and (11), https://arxiv.org/abs/2006.10597

    Example:
        >>> loss = TraceMax_ELBO(max_plate_nesting=1)
        >>> svi = SVI(model, guide, optim, loss)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        model_weights: Mapping[str, float] | None = None,
        guide_weights: Mapping[str, float] | None = None,
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
        self.model_weights = dict(model_weights or {})
        self.guide_weights = dict(guide_weights or {})

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a scalar tensor, in nats, summed over the data plate."""
        return _sum(self.terms(model, guide, *args, **kwargs))

    def terms(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return the parts of the loss by name, each to be added.

        `likelihood` has the sites observed in the model, `prior` its other sites and factors,
        `posterior` those of the guide, and `maximiser` what networks learn from, if there are any.
        """
        self._set_nesting(model, guide, args, kwargs)
        terms: dict[str, Tensor] = {}
        for traces in self._get_traces(model, guide, args, kwargs):
            for name, term in (self._split(*traces) | _learned(*traces)).items():
                terms[name] = terms.get(name, 0.0) + term.sum() / self.num_particles
        return terms

    def log_ratio(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Return `log p(x, z) - log q(z | x)` of each data point, both by the maximum.

        One row a particle: of shape `num_particles batch` for a single data plate.
        """
        self._set_nesting(model, guide, args, kwargs)
        rows = [
            -_sum(self._split(*traces)) for traces in self._get_traces(model, guide, args, kwargs)
        ]
        # Pyro vectorises several particles only.
        several = self.vectorize_particles and self.num_particles > 1
        return torch.cat(rows) if several else torch.stack(rows)

    def hold(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> tuple:
        """Return the terms as `terms` does, and what was drawn and found on the way.

        Returns:
            The terms, and a `Held` for `terms_at`.
        """
        self._set_nesting(model, guide, args, kwargs)
        model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
        split = self._split(model_trace, guide_trace) | _learned(model_trace, guide_trace)
        terms = {name: term.sum() for name, term in split.items()}
        values = {k: v.detach() for k, v in _values(guide_trace).items()}
        return terms, Held(values, _maxima(model_trace), _maxima(guide_trace))

    def terms_at(
        self, held: Held, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return the terms at earlier draws and maximisers, with the parameters of now.

        Nothing is solved, so that there is nothing for networks to learn from.
        """
        self._set_nesting(model, guide, args, kwargs)
        model_trace = self._model_trace(model, held.values, held.model_maxima, args, kwargs)
        guide_trace = self._guide_trace(guide, held.values, held.guide_maxima, args, kwargs)
        return {k: v.sum() for k, v in self._split(model_trace, guide_trace).items()}

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        drawn = poutine.trace(guide).get_trace(*args, **kwargs)
        _check_reparameterised(drawn)
        values = _values(drawn)
        guide_trace = self._guide_trace(guide, values, {}, args, kwargs)
        model_trace = self._model_trace(model, values, {}, args, kwargs)
        return model_trace, guide_trace

    def _guide_trace(
        self, guide: Callable, values: Values, maxima: Values, args: tuple, kwargs: dict
    ) -> Trace:
        return Maximised(guide, values, maxima, self.guide_weights).get_trace(args, kwargs)

    def _model_trace(
        self, model: Callable, values: Values, maxima: Values, args: tuple, kwargs: dict
    ) -> Trace:
        if self.max_plate_nesting != float("inf"):
            model = poutine.enum(model, first_available_dim=-1 - int(self.max_plate_nesting))
        maximised = Maximised(model, values, maxima, self.model_weights)
        trace = maximised.get_trace(args, kwargs)
        _check_sites(trace, values)
        return trace

    def _split(self, model_trace: Trace, guide_trace: Trace) -> dict[str, Tensor]:
        """The negative likelihood, prior and posterior of each data point."""
        model, guide = dict(random_sites(model_trace)), dict(random_sites(guide_trace))
        check_weights(self.model_weights, model, "model")
        check_weights(self.guide_weights, guide, "guide")
        likelihood = {
            name: site
            for name, site in model.items()
            if site["is_observed"] and not isinstance(site["fn"], Unit)
        }
        prior = {name: site for name, site in model.items() if name not in likelihood}
        return {
            "likelihood": -self._log_density(likelihood, self.model_weights),
            "prior": -self._log_density(prior, self.model_weights),
            "posterior": self._log_density(guide, self.guide_weights),
        }

    def _log_density(self, sites: Mapping[str, Site], weights: Mapping[str, float]) -> Tensor:
        """The sum over sites, with enumerated dimensions summed out."""
        plates = self.max_plate_nesting
        total, summed, last = torch.zeros(()), None, None
        for name, site in sites.items():
            weight = weights.get(name, 1.0)
            if site["unscaled_log_prob"].dim() <= plates:
                total = total + weight * site["log_prob"]
            else:
                term = weight * site["unscaled_log_prob"]
                summed, last = term if summed is None else summed + term, site
        if summed is None or last is None:
            return total
        summed = summed.flatten(0, summed.dim() - int(plates) - 1).logsumexp(0)
        # Scale and mask are of the logarithm of the sum, and not of its terms.
        return total + scale_and_mask(summed, last["scale"], last["mask"])

    def _set_nesting(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> None:
        if self.max_plate_nesting == float("inf"):
            self._guess_max_plate_nesting(model, guide, args, kwargs)


def check_weights(weights: Mapping[str, float], sites: Collection[str], program: str) -> None:
    """Raise a UserError for a weight that names none of the sites of a program."""
    for name in weights:
        if name not in sites:
            raise UserError(
                f"a weight names {name!r}, which is no site of the {program}: "
                f"{did_you_mean(name, sites)}"
            )


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    return sum(others, start=first)


def _values(trace: Trace) -> Values:
    """The guide's draws at sites that are not auxiliary, and the indices of its plates."""
    sites: Mapping[str, Site] = trace.nodes
    return {
        name: site["value"]
        for name, site in sites.items()
        if site["type"] == "sample" and "maximize" not in site["infer"]
    }


def _learned(*traces: Trace) -> dict[str, Tensor]:
    """What the networks behind maximisers learn from, of each data point; none without any."""
    losses = [
        scale_and_mask(site["infer"][LOSS], site["scale"], site["mask"])
        for trace in traces
        for _, site in random_sites(trace)
        if LOSS in site["infer"]
    ]
    return {"maximiser": sum(losses[1:], start=losses[0])} if losses else {}


def _maxima(trace: Trace) -> Values:
    return {n: s["value"].detach() for n, s in random_sites(trace) if "maximize" in s["infer"]}


def _check_reparameterised(trace: Trace) -> None:
    for name, site in random_sites(trace):
        if not site["is_observed"] and not getattr(site["fn"], "has_rsample", False):
            raise UserError(
                f"TraceMax_ELBO needs reparameterised draws; site {name!r} of the guide is a "
                f"{type(site['fn']).__name__} without rsample."
            )


def _check_sites(trace: Trace, values: Values) -> None:
    for name, site in random_sites(trace):
        known = site["is_observed"] or name in values or "maximize" in site["infer"]
        if not known and "_enumerate_dim" not in site["infer"]:
            raise UserError(
                f"the guide has no site {name!r} of the model; sample it there, enumerate it, or "
                'mark it with infer={"maximize": solver}.'
            )
