"""A guide improved for each data point by gradient steps: semi-amortised inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Normal, TransformedDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint

from pyro_latents.programs import latent_sites, plate_nesting, vectorised

# Below it, a scale that is estimated from draws of a point mass would be zero.
MIN_SCALE = 1e-3
DRAWS = 32
PARTICLES = 4
PLATE = "_refined"


class Refined(PyroModule):
    r"""Normals around the output of any guide, moved uphill on the bound of each data point.

    The guide that is wrapped is drawn from, its draws give a mean and a scale for each coordinate
    (of the unconstrained space of the site), and Adam then raises the bound in these numbers,
    which are every data point's own: the amortisation gap is closed, and what remains is the gap
    of the family. The parameters here are the wrapped guide's and have no gradient while
    ``refining``: to train them, set it to false, or train the guide by itself.

    Args:
        model: The generative model; it is not a part of this module.
        guide: The guide to refine, whose sites have continuous supports.
        steps: Gradient steps for each data point.
        learning_rate: Of Adam, in units of the unconstrained space.
        refining: Whether to refine; if not, this is the wrapped guide.

    References:
        Semi-Amortized Variational Autoencoders (Kim et al., 2018), https://arxiv.org/abs/1802.02550
    """

    def __init__(
        self,
        model: Callable,
        guide: Any,
        *,
        steps: int = 50,
        learning_rate: float = 0.03,
        refining: bool = True,
    ) -> None:
        super().__init__()
        # A function, so that the model's parameters do not become this module's.
        self._model = partial(model)
        self.guide = guide
        self.steps = steps
        self.learning_rate = learning_rate
        self.refining = refining
        self._kept: tuple[list[tuple[Any, int]], _Refinement] | None = None

    def posterior(self, *batch: Any) -> dict[str, TorchDistributionMixin]:
        """Return the refined distribution of each latent site, or the wrapped guide's own."""
        if not self.refining:
            return self.guide.posterior(*batch)
        return self._refinement(batch).distributions()

    def forward(self, *batch: Any, **options: Any) -> dict[str, Tensor]:
        """Draw every latent site, in the plates of the wrapped guide."""
        if not self.refining:
            return self.guide(*batch, **options)
        return self._refinement(batch).draw()

    def _refinement(self, batch: tuple[Any, ...]) -> _Refinement:
        # An importance estimate asks for the same batch many times, a few particles each.
        state = _versions(*batch, *_parameters(self.guide), *_parameters(self._model.func))
        if self._kept is None or not _are_same(self._kept[0], state):
            # Plates and handlers around this guide are not for the search.
            with poutine.block(), torch.enable_grad():
                found = _Refinement(self.guide, batch)
                found.climb(self._model, batch, self.steps, self.learning_rate)
            self._kept = (state, found)
        return self._kept[1]


def unrefined(guide: Callable) -> Callable:
    """Return the guide that a refined one wraps, or a guide as it is."""
    return guide.guide if isinstance(guide, Refined) else guide


class _Refinement:
    """The means and scales of every site of a batch."""

    def __init__(self, guide: Callable, batch: tuple[Any, ...]) -> None:
        with torch.no_grad():
            once = poutine.trace(guide).get_trace(*batch)
            self.sites = dict(latent_sites(once))
            # One dimension is left for the particles of whoever called the guide.
            self.nesting = plate_nesting(once) + 1
            drawn = poutine.trace(vectorised(guide, DRAWS, self.nesting, PLATE)).get_trace(*batch)
        self.parameters: dict[str, tuple[Tensor, Tensor]] = {}
        for name, site in self.sites.items():
            if site["fn"].support.is_discrete:
                raise ValueError(f"site {name!r} is discrete: gradients cannot refine it.")
            to_free = biject_to(site["fn"].support).inv
            free = to_free(drawn.nodes[name]["value"])
            loc = free.mean(0).reshape(to_free(site["value"]).shape)
            scale = free.std(0).reshape(loc.shape).clamp_min(MIN_SCALE)
            self.parameters[name] = (
                loc.clone().requires_grad_(),
                scale.log().clone().requires_grad_(),
            )

    def distributions(self) -> dict[str, TorchDistributionMixin]:
        """The distribution of each site, over its own support."""
        return {name: self._distribution(name) for name in self.sites}

    def _distribution(self, name: str) -> TorchDistributionMixin:
        loc, log_scale = self.parameters[name]
        support = self.sites[name]["fn"].support
        base = Normal(loc, log_scale.exp()).to_event(len(self.sites[name]["fn"].event_shape))
        if _is_real(support):
            return base
        return TransformedDistribution(base, [biject_to(support)])

    def draw(self) -> dict[str, Tensor]:
        """Sample every site within its plates."""
        values = {}
        plates: dict[str, pyro.plate] = {}
        for name, site in self.sites.items():
            with ExitStack() as stack:
                for frame in site["cond_indep_stack"]:
                    if frame.vectorized and frame.name not in plates:
                        # A plate is a site as well: a second one of its name is an error.
                        plates[frame.name] = pyro.plate(frame.name, frame.size, dim=frame.dim)
                    if frame.vectorized:
                        stack.enter_context(plates[frame.name])
                values[name] = pyro.sample(name, self._distribution(name))
        return values

    def climb(
        self, model: Callable, batch: tuple[Any, ...], steps: int, learning_rate: float
    ) -> None:
        """Raise the bound by Adam, every data point by its own numbers."""
        free = [tensor for pair in self.parameters.values() for tensor in pair]
        optimizer = torch.optim.Adam(free, lr=learning_rate)
        drawn = vectorised(self.draw, PARTICLES, self.nesting, PLATE)
        scored = vectorised(model, PARTICLES, self.nesting, PLATE)
        for step in range(steps):
            # The bound is drawn, so that steps of one size would never settle.
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
            guide_trace = poutine.trace(drawn).get_trace()
            model_trace = poutine.trace(poutine.replay(scored, guide_trace)).get_trace(*batch)
            loss = (guide_trace.log_prob_sum() - model_trace.log_prob_sum()) / PARTICLES
            assert isinstance(loss, Tensor)
            gradients = torch.autograd.grad(loss, free)
            for tensor, gradient in zip(free, gradients, strict=True):
                tensor.grad = gradient
            optimizer.step()
        self.parameters = {
            name: (loc.detach(), log_scale.detach())
            for name, (loc, log_scale) in self.parameters.items()
        }


def _is_real(support: Constraint) -> bool:
    return getattr(support, "base_constraint", support) is constraints.real


def _parameters(program: Any) -> Iterable[Tensor]:
    return program.parameters() if isinstance(program, nn.Module) else ()


def _versions(*held: Any) -> list[tuple[Any, int]]:
    """What is held, each with the number of times that it was written to."""
    return [(thing, thing._version if isinstance(thing, Tensor) else 0) for thing in held]


def _are_same(one: list[tuple[Any, int]], other: list[tuple[Any, int]]) -> bool:
    return len(one) == len(other) and all(
        a is b and m == n for (a, m), (b, n) in zip(one, other, strict=True)
    )
