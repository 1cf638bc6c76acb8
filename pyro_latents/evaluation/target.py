"""What chains move on: the densities of a guide and its model, at unconstrained coordinates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from math import log, pi
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.infer import config_enumerate
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Transform, biject_to
from torch.distributions.constraints import MixtureSameFamilyConstraint

from pyro_latents.errors import UserError
from pyro_latents.evaluation.recorded import recorded
from pyro_latents.programs import Site, latent_sites, random_sites, vectorised

# Draws a dimension, correlated ones, that the diagonal of a covariance counts as.
SHRINKAGE = 5


class Point(NamedTuple):
    """Where chains are, and what is known there.

    Args:
        position: Unconstrained coordinates of all latent sites, `chains batch dim`.
        log_q: Log-density of the guide in these coordinates, in nats, `chains batch`.
        log_p: That of model and data, likewise.
        grad_q: Gradient of ``log_q``, `chains batch dim`.
        grad_p: Gradient of ``log_p``.
    """

    position: Tensor
    log_q: Tensor
    log_p: Tensor
    grad_q: Tensor
    grad_p: Tensor

    def or_where(self, chosen: Tensor, other: Point) -> Point:
        """Return this point, but the other one for the chosen chains, `chains batch`."""
        pairs = zip(other, self, strict=True)
        return Point(
            *(
                torch.where(chosen[..., None] if mine.dim() == 3 else chosen, theirs, mine)
                for theirs, mine in pairs
            )
        )


class Target:
    """The guide and the model of some data points, as densities of a vector.

    Every continuous latent site lies on the real line (by the bijection of its support that
    `torch.distributions` has), and the sites side by side; the densities count the bijections in.
    Discrete sites are summed out, in the guide and in the model.

    Args:
        model: The generative model.
        guide: The guide.
        batch: The arguments of both.
        num_chains: Chains for each data point.
        plate_dim: The dimension of the data plate, the outermost one; chains are left of it.

    Raises:
        UserError: if a site has no density that chains could move on.
    """

    def __init__(
        self, model: Callable, guide: Callable, batch: list[Any], num_chains: int, plate_dim: int
    ) -> None:
        self._model = vectorised(model, num_chains, -plate_dim, "_chains")
        self._guide = vectorised(guide, num_chains, -plate_dim, "_chains")
        self._batch = batch
        self._plate_dim = plate_dim
        self.shape = (num_chains, len(batch[0]))
        self._noisy: list[str] = []
        coordinates = self._drawn()
        self._shapes = {name: value.shape for name, value in coordinates.items()}
        self._densities = recorded(self._run, self._side_by_side(coordinates))
        self._instead: tuple[Tensor, Normals] | None = None
        self._is_replaced = False

    def __call__(self, position: Tensor) -> Point:
        """Return what is known at coordinates `chains batch dim`."""
        # A graph has the layout of its example.
        position = position.contiguous()
        point = Point(position, *self._densities(position))
        # Chains ask for it at each of their steps: only where there is anything to put in.
        if self._instead is None or not self._is_replaced:
            return point
        where, normals = self._instead
        log_q, grad_q = normals.at(position)
        return point._replace(
            log_q=torch.where(where, log_q, point.log_q),
            grad_q=torch.where(where[:, None], grad_q, point.grad_q),
        )

    def draw(self) -> Tensor:
        """Return the coordinates of a draw of the guide for each chain, `chains batch dim`."""
        drawn = self._side_by_side(self._drawn())
        if self._instead is None:
            return drawn
        where, normals = self._instead
        return torch.where(where[:, None], normals.draw(len(drawn)), drawn)

    def prior_draw(self) -> Tensor | None:
        """Return the coordinates of a draw of the model's prior, None if there is none to draw."""
        try:
            trace = poutine.trace(poutine.uncondition(self._model)).get_trace(*self._batch)
        except NotImplementedError:
            return None
        return self.position(trace)

    def begin_instead(self, where: Tensor, draws: Tensor) -> None:
        """Put normals with the moments of draws in the guide's place, for some data points.

        Args:
            where: For which, of shape `batch`.
            draws: Of coordinates, `n batch dim`.
        """
        self._instead, self._is_replaced = (where, Normals.of(draws)), bool(where.any())

    def position(self, trace: Trace) -> Tensor:
        """Return the coordinates of a run of the model, the same ones for all chains."""
        free = {name: coordinates(trace.nodes[name]) for name in self._shapes}
        return self._side_by_side(
            {name: free[name].expand(shape) for name, shape in self._shapes.items()}
        )

    @torch.no_grad()
    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Return the values of the sites at coordinates, each `chains batch ...`."""
        with Placed(self._apart(position)) as placed:
            self._model(*self._batch)
        return placed.values

    @torch.no_grad()
    def _drawn(self) -> dict[str, Tensor]:
        guide_trace = poutine.trace(self._guide).get_trace(*self._batch)
        model = poutine.replay(self._model, guide_trace)
        model_trace = poutine.trace(model).get_trace(*self._batch)
        self._noisy = [n for n, _ in latent_sites(model_trace) if own_noise(n) in guide_trace]
        return {name: coordinates(site) for name, site in movable_sites(model_trace, guide_trace)}

    def _run(self, position: Tensor) -> tuple[Tensor, ...]:
        """Both log-densities and their gradients."""
        position = position.detach().requires_grad_()
        with torch.enable_grad():
            densities = self._log_densities(position)
            gradients = [
                torch.autograd.grad(density.sum(), position, retain_graph=True)[0]
                for density in densities
            ]
        return (*(density.detach() for density in densities), *gradients)

    def _log_densities(self, position: Tensor) -> tuple[Tensor, Tensor]:
        free = self._apart(position)
        with Placed(free) as placed:
            log_p = self._log_density(self._model)
        held = {**placed.values, **{own_noise(name): free[name] for name in self._noisy}}
        held = {name: value for name, value in held.items() if name not in self._noisy}
        log_q = self._log_density(poutine.condition(self._guide, held))
        volume = sum(value.reshape(*self.shape, -1).sum(-1) for value in placed.log_dets)
        return log_q + volume, log_p + volume

    def _log_density(self, program: Callable) -> Tensor:
        """That of all sites of a run but for its discrete latent ones, `chains batch`."""
        enumerated = poutine.enum(config_enumerate(program), self._plate_dim - 2)
        trace = poutine.trace(enumerated).get_trace(*self._batch)
        trace.compute_log_prob()
        sites = [site for _, site in random_sites(trace)]
        if any(site["infer"].get("_enumerate_dim") is not None for site in sites):
            return _summed_out(trace, self._plate_dim).reshape(self.shape)
        return sum(site["log_prob"].reshape(*self.shape, -1).sum(-1) for site in sites)

    def _side_by_side(self, values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([value.reshape(*self.shape, -1) for value in values.values()], -1)

    def _apart(self, position: Tensor) -> dict[str, Tensor]:
        sizes = [shape[2:].numel() for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), position.split(sizes, -1), strict=True)
        return {name: part.reshape(shape) for (name, shape), part in parts}


class Normals(NamedTuple):
    """A normal distribution of the coordinates of each data point.

    Args:
        mean: Of shape `batch dim`.
        factor: The Cholesky factor of its covariance, `batch dim dim`.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, draws: Tensor) -> Normals:
        """Return those with the moments of draws, `n batch dim`."""
        return cls(draws.mean(0), covariance_factor(draws))

    def draw(self, chains: int) -> Tensor:
        """Return draws, `chains batch dim`."""
        noise = torch.randn_like(self.mean.expand(chains, *self.mean.shape))
        return self.mean + torch.einsum("bij,cbj->cbi", self.factor, noise)

    def at(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-density and gradient at coordinates `chains batch dim`."""
        apart = (position - self.mean).permute(1, 2, 0)
        white = torch.linalg.solve_triangular(self.factor, apart, upper=False)
        back = torch.linalg.solve_triangular(self.factor.mT, white, upper=True)
        volume = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = volume + log(2 * pi) * self.mean.shape[-1] / 2
        log_density = -white.square().sum(1) / 2 - constant[:, None]
        return log_density.T, -back.permute(2, 0, 1)


def covariance_factor(draws: Tensor) -> Tensor:
    """The factor of a covariance of draws `n batch dim`, drawn towards its diagonal."""
    centred = draws - draws.mean(0)
    covariance = torch.einsum("nbi,nbj->bij", centred, centred) / len(draws)
    weight = len(draws) / (len(draws) + SHRINKAGE * draws.shape[-1])
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    # A coordinate that never moved has none.
    variance = variance.clamp_min(torch.finfo(variance.dtype).tiny ** 0.5)
    mixed = weight * covariance + (1 - weight) * torch.diag_embed(variance)
    return torch.linalg.cholesky(mixed)


class Placed(Messenger):
    """Puts latent sites where unconstrained coordinates say, each by its own support.

    Args:
        coordinates: Of each site by name, of the shape of the site's values.

    Attributes:
        values: The values that the sites were given.
        log_dets: The logarithms of what the bijections stretch volumes by.
    """

    def __init__(self, coordinates: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.values: dict[str, Tensor] = {}
        self.log_dets: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.coordinates:
            return
        free, bijection = self.coordinates[msg["name"]], _bijection(msg["fn"].support)
        msg["value"] = self.values[msg["name"]] = bijection(free)
        self.log_dets.append(bijection.log_abs_det_jacobian(free, msg["value"]))
        msg["done"] = True


def movable_sites(model_trace: Trace, guide_trace: Trace) -> Iterator[tuple[str, Site]]:
    """The continuous latent sites of the model, at the guide's values.

    Raises:
        UserError: if the guide does not sample one of them, one has no density that chains could
            move on, or a discrete one cannot be summed out.
    """
    for name, site in latent_sites(model_trace):
        discrete = site["fn"].support is not None and site["fn"].support.is_discrete
        if name not in guide_trace and not discrete:
            raise UserError(f"the guide does not sample {name!r}, a latent site of the model.")
    noise = {own_noise(name) for name, _ in latent_sites(model_trace)}
    for name, site in random_sites(guide_trace):
        if name not in {*model_trace.nodes, *noise} and not _is_point_mass(site):
            raise UserError(
                f"site {name!r} of the guide is none of the model's, and what is drawn given it "
                "has no density of its own: use a guide without it."
            )
    for name, site in latent_sites(model_trace):
        if "maximize" in site["infer"]:
            raise UserError(
                f"site {name!r} is marginalised by its maximum: the model has no density without "
                "it that chains could move on."
            )
        where = [w for w, held in _held(name, model_trace, guide_trace) if _is_point_mass(held)]
        if where:
            raise UserError(
                f"site {name!r} of the {where[0]} is a point mass, which has no density that "
                "chains could move on: give it a distribution."
            )
        if site["fn"].has_enumerate_support:
            continue
        if site["fn"].support.is_discrete:
            raise UserError(f"site {name!r} is discrete, and has no finite support to sum over.")
        yield name, site


def own_noise(name: str) -> str:
    """Return the site that Pyro's automatic guides draw a site's coordinates at.

    They make the site itself a point mass there, which has the volume of its bijection.
    """
    return f"{name}_unconstrained"


def coordinates(site: Site) -> Tensor:
    """Return the unconstrained coordinates of the value of a site."""
    fn = site["fn"]
    value = site["value"].expand(fn.shape())
    try:
        return _bijection(fn.support).inv(value)
    except NotImplementedError as error:
        raise UserError(
            f"site {site['name']!r} has a support that cannot be laid on the real line, "
            f"{fn.support}: chains cannot move on it."
        ) from error


def _bijection(support: Any) -> Transform:
    if isinstance(support, MixtureSameFamilyConstraint):
        support = support.base_constraint
    return biject_to(support)


def _is_point_mass(site: Site) -> bool:
    distribution = site["fn"]
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def _held(name: str, model_trace: Trace, guide_trace: Trace) -> Iterator[tuple[str, Site]]:
    if name in guide_trace.nodes and own_noise(name) not in guide_trace:
        yield "guide", guide_trace.nodes[name]
    yield "model", model_trace.nodes[name]


def _summed_out(trace: Trace, plate_dim: int) -> Tensor:
    """The log-density of a run whose discrete sites are enumerated, without those, per point."""
    trace.pack_tensors()
    symbols = trace.plate_to_symbol
    terms: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    frames: set[str] = set()
    outer = set()
    for _, site in random_sites(trace):
        plates = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
        ordinal = frozenset(symbols[frame.name] for frame in plates)
        terms.setdefault(ordinal, []).append(site["packed"]["log_prob"])
        frames |= ordinal
        outer |= {symbols[frame.name] for frame in plates if frame.dim <= plate_dim}
    packs: list[Any] = [term for group in terms.values() for term in group]
    known = {dim for term in packs for dim in term._pyro_dims}
    total = contract_to_tensor(terms, known - frames, target_ordinal=frozenset(outer))
    return packed.unpack(total, trace.symbol_to_dim)
