"""The objective of a warm-up: the likelihood alone."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro import poutine
from torch import Tensor

from pyro_latents.losses.differentiable import DifferentiableELBO
from pyro_latents.losses.maximum import check_weights
from pyro_latents.programs import random_sites


class LikelihoodLoss(DifferentiableELBO):
    r"""The negative log-likelihood of what is observed, at draws of the guide: no divergence.

    .. math:: -\mathbb{E}_{q(z | x)}[\log p(x | z)]

    It is no bound. Sites of the model that the guide lacks are drawn from the model.

    Args:
        weights: Factors of the log-densities of observed sites, by name; 1 if not named.
        num_particles: Draws per data point that the estimate is made of.

    Raises:
        UserError: at a batch, if a weight names no site of the model.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120
    """

    def __init__(
        self, *, weights: Mapping[str, float] | None = None, num_particles: int = 1
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.weights = dict(weights or {})

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a scalar tensor, in nats, summed over the data plate."""
        loss: Any = 0.0
        for _ in range(self.num_particles):
            guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
            replayed = poutine.trace(poutine.replay(model, guide_trace))
            trace = replayed.get_trace(*args, **kwargs)
            sites = dict(random_sites(trace))
            check_weights(self.weights, sites, "model")
            # Only these sites are scored: a prior need not have a density.
            trace.compute_log_prob(lambda name, site: site["is_observed"])
            for name, site in sites.items():
                if site["is_observed"]:
                    loss = loss - self.weights.get(name, 1.0) * site["log_prob_sum"]
        return loss / self.num_particles
