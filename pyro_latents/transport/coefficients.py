r"""Coefficient inference: the path between two points along the transport operators."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.transport.exponential import check_operators
from pyro_latents.transport.line import search_line
from pyro_latents.transport.newton import minimise
from pyro_latents.transport.nodes import best_by_pattern, exponentials, objectives_at, spread
from pyro_latents.transport.planar import PlanarProblem
from pyro_latents.transport.series import SeriesProblem

Search = Literal["local", "wide", "global"]

# Of the random starts, as in the procedure that the paper's runs used.
_START_RANGE = 2.5
# For one operator: norms of the generator that the shared nodes reach to, by what is searched for.
_RADIUS = {"local": 15.0, "wide": 15.0, "global": 60.0}


@dataclass(frozen=True)
class _Plan:
    """How several operators are searched: nodes that all pairs share, then descents.

    Args:
        nodes: Nodes that are looked at.
        radius: How far they reach.
        kept: Nodes from which to descend.
        stages: The descents that go on, their steps, and whether with exact derivatives.
        tolerance: The relative decrease of the objective below which a descent ends.
    """

    nodes: int
    radius: float
    kept: int
    stages: tuple[tuple[int, int, bool], ...]
    tolerance: float


_ALL = 1_000
# In the plane the paths that reach a point exactly form a valley, and only the L1 term tells its
# ends apart: exact derivatives, which cost nothing more there, and more descents to the end. Near
# a rotation a radius changes little with each turn, and the exact path may be many turns long.
_PLANE = _Plan(16384, 100.0, 14, ((_ALL, 5, True), (6, 6, True), (2, 60, True)), 1e-6)
_SPACE = _Plan(4096, 9.0, 12, ((_ALL, 3, False), (4, 6, False), (1, 20, True)), 1e-5)
_LONGEST_START = 10.0


def infer_coefficients(
    psi: Tensor,
    start: Tensor,
    end: Tensor,
    l1_weight: float | Tensor,
    *,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    search: Search = "wide",
) -> tuple[Tensor, Tensor]:
    r"""Coefficients that carry `start` to `end`, for all pairs in one batched solve.

    .. math:: c^* = \arg\min_c \tfrac12 \|z_1 - T_\Psi(c) z_0\|^2 + \zeta \sum_m |c_m|

    The objective is not convex. Random starts find local minima (the paper's procedure,
    `search="local"`). By default the objective is first looked up at nodes that all pairs share,
    and the descent starts from the best of those as well. On a CPU a compiled loop descends pair
    by pair, among torch's threads (its first call on a machine compiles, for a quarter of a
    minute); on other devices all pairs descend together. The answer is found in float64, nothing
    is differentiated, and a pair's answer does not depend on the other pairs, but for the rounding
    that may decide between two of its starts: the starts, random ones included, are the same for
    every pair. The answer is never worse than c = 0.

    Args:
        psi: The operators, of shape `num_operators z_dim z_dim`.
        start: The points z0, of shape `batch z_dim`.
        end: The points z1, of shape `batch z_dim`.
        l1_weight: The weight zeta, one for all pairs or of shape `batch`; not negative.
        restarts: The number of random starts, uniform on [-2.5, 2.5] in each coefficient.
        generator: Source of the random starts; the global one if None.
        search: `local` descends from the random starts and from zero only. `wide` adds starts of
            its own, over generators of norm up to about 15. `global` searches four times as far
            and needs a single operator.

    Returns:
        The coefficients, of shape `batch num_operators`, and the objectives, of shape `batch`, in
        the dtype of `start`, or torch's default where that is of integers, and on its device.

    Raises:
        UserError: If an argument is not finite (the message names the rows), or has a wrong
            shape or value. It is a ValueError.

    References:
        Variational Autoencoder with Learned Latent Structure (Connor, Canal, Rozell, 2020),
        appendix A, https://arxiv.org/abs/2006.10597
    """
    weight = _check(psi, start, end, l1_weight, restarts, search)
    dtype = _floating(start)
    psi, start, end = (t.detach().to(torch.float64) for t in (psi, start, end))
    if not len(start):
        return start.new_empty(0, len(psi), dtype=dtype), start.new_empty(0, dtype=dtype)
    uniform = torch.rand(
        restarts,
        len(psi),
        generator=generator,
        dtype=torch.float64,
        device=psi.device if generator is None else generator.device,
    ).to(psi.device)
    norms, unit = _normed(psi)
    starts = (2 * uniform - 1) * _START_RANGE * norms
    scaled_weight = weight[:, None] / norms
    if len(psi) == 1:
        radius = max(_RADIUS[search], float(starts.abs().amax()))
        found, objective = search_line(
            unit[0],
            start,
            end,
            scaled_weight[:, 0],
            radius=min(radius, _RADIUS["global"]),
            descend_from=torch.cat([starts[:, 0], starts.new_zeros(1)])
            if search == "local"
            else None,
        )
        found = found[:, None]
    else:
        found, objective = _search_space(unit, start, end, scaled_weight, starts, search)
    nothing = 0.5 * (end - start).square().sum(1)
    better = objective < nothing
    coefficients = torch.where(better[:, None], found / norms, 0.0)
    return coefficients.to(dtype), torch.where(better, objective, nothing).to(dtype)


def descend(
    psi: Tensor, start: Tensor, end: Tensor, l1_weight: float, first: Tensor
) -> tuple[Tensor, Tensor]:
    """Coefficients where descents from given ones end: what `infer_coefficients` minimises.

    Args:
        psi: The operators, of shape `num_operators z_dim z_dim`.
        start: The points z0, of shape `batch z_dim`.
        end: The points z1, of shape `batch z_dim`.
        l1_weight: The weight zeta.
        first: Where each pair's descents begin, of shape `starts batch num_operators`.

    Returns:
        The best of each pair, `batch num_operators`, and their objectives, `batch`; in the dtype
        that `infer_coefficients` answers in.

    Raises:
        UserError: As `infer_coefficients`.
    """
    weight = _check(psi, start, end, l1_weight, len(first), "local")
    dtype = _floating(start)
    psi, start, end, first = (t.detach().to(torch.float64) for t in (psi, start, end, first))
    norms, unit = _normed(psi)
    plan = _plan(psi)
    count = len(first)
    found, objective = _minimise(
        (unit, start.T.repeat(1, count), end.T.repeat(1, count)),
        (first * norms).flatten(0, 1).T.contiguous(),
        (weight[:, None] / norms).T.repeat(1, count),
        iterations=plan.stages[-1][1],
        tolerance=plan.tolerance,
    )
    objective, best = objective.view(count, -1).min(0)
    found = found.view(len(psi), count, -1).gather(1, best.expand(len(psi), 1, -1))[:, 0].T
    return (found / norms).to(dtype), objective.to(dtype)


def _floating(points: Tensor) -> torch.dtype:
    """The dtype of an answer: that of the points, unless these are integers."""
    return points.dtype if points.is_floating_point() else torch.get_default_dtype()


def _normed(psi: Tensor) -> tuple[Tensor, Tensor]:
    """The norms of operators, and operators of norm one."""
    # An operator of norm zero moves nothing; a tiny norm in its place keeps the division finite.
    norms = torch.linalg.matrix_norm(psi, 2).clamp_min(torch.finfo(torch.float64).tiny ** 0.5)
    return norms, psi / norms[:, None, None]


def _plan(psi: Tensor) -> _Plan:
    return _PLANE if psi.shape[1] == 2 else _SPACE


def _minimise(
    paths: tuple[Tensor, Tensor, Tensor],
    c: Tensor,
    weight: Tensor,
    *,
    exact: bool = True,
    **how: Any,
) -> tuple[Tensor, Tensor]:
    """Descend from `c`: on a CPU one problem after the other, elsewhere all together.

    The paths are given by the operators, their starts and their ends.
    """
    psi, start, end = paths
    if _one_by_one(c.device):
        # Numba takes half a second to import.
        from pyro_latents.transport.compiled_newton import minimise_each

        return minimise_each(psi, start, end, c, weight, exact=exact, **how)
    # Coarse descents are in single precision.
    number = torch.float64 if exact else torch.float32
    problem_class = PlanarProblem if len(start) == 2 else SeriesProblem
    problem = problem_class(psi.to(number), start.to(number), end.to(number))
    found, objective = minimise(problem, c.to(number), weight.to(number), exact=exact, **how)
    return found.to(c), objective.to(c)


def _one_by_one(device: torch.device) -> bool:
    return device.type == "cpu"


def _search_space(
    psi: Tensor, start: Tensor, end: Tensor, weight: Tensor, starts: Tensor, search: Search
) -> tuple[Tensor, Tensor]:
    """Descend from several starts a pair, dropping the worse ones on the way."""
    num_operators, batch = len(psi), len(start)
    plan = _plan(psi)
    # A start far out only overflows; the direction is what the restart is for.
    length = starts.abs().sum(1, keepdim=True)
    starts = starts * (_LONGEST_START / length.clamp_min(1.0)).clamp_max(1.0)
    fixed = torch.cat([starts.new_zeros(1, num_operators), starts])
    c = fixed.T[:, :, None].expand(-1, -1, batch)
    if search != "local":
        # Only their order matters, and single precision keeps it.
        coarse = [part.float() for part in (psi, start, end, weight)]
        nodes = spread(num_operators, plan.nodes, plan.radius, coarse[0])
        best = best_by_pattern(_objectives(nodes, *coarse), plan.kept)
        c = torch.cat([c, nodes.flatten(0, 1)[best].to(c).permute(2, 1, 0)], 1)
    objective = None
    for kept, iterations, exact in plan.stages:
        kept = min(kept, c.shape[1])
        if objective is not None:
            objective, best = objective.topk(kept, 0, largest=False)
            c = c.gather(1, best.expand(num_operators, -1, -1))
        sources, targets, weights = (part.T.repeat(1, kept) for part in (start, end, weight))
        found, value = _minimise(
            (psi, sources, targets),
            c.reshape(num_operators, -1),
            weights,
            iterations=iterations,
            tolerance=plan.tolerance,
            exact=exact,
        )
        c, objective = found.view(num_operators, kept, batch), value.view(kept, batch)
    assert objective is not None
    objective, best = objective.min(0)
    return c.gather(1, best.expand(num_operators, 1, -1))[:, 0].T, objective


def _objectives(nodes: Tensor, psi: Tensor, start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """The objective of every pair at every node, of shape `batch patterns each`."""
    flat = nodes.flatten(0, 1)
    objective = objectives_at(exponentials(psi, flat), start, end) + weight @ flat.abs().T
    return objective.unflatten(1, nodes.shape[:2])


def _check(
    psi: Tensor,
    start: Tensor,
    end: Tensor,
    l1_weight: float | Tensor,
    restarts: int,
    search: Search,
) -> Tensor:
    check_operators(psi)
    if start.ndim != 2 or start.shape[1] != psi.shape[1] or end.shape != start.shape:
        raise UserError(
            f"infer_coefficients expects start and end of shape (batch, {psi.shape[1]}), as psi "
            f"has the shape {tuple(psi.shape)}; got {tuple(start.shape)} and {tuple(end.shape)}."
        )
    if restarts < 1:
        raise UserError(f"restarts must be at least 1; got {restarts}.")
    if search not in _RADIUS:
        raise UserError(f"search must be one of {', '.join(_RADIUS)}; got {search!r}.")
    if search == "global" and len(psi) > 1:
        raise UserError(
            f"search='global' needs a single operator; psi has {len(psi)}. Use search='wide'."
        )
    if not bool(torch.isfinite(psi).all()):
        rows = (~torch.isfinite(psi.flatten(1)).all(1)).nonzero()[:, 0].tolist()
        raise UserError(f"psi is not finite: operators {rows}.")
    for name, points in (("start", start), ("end", end)):
        bad = (~torch.isfinite(points).all(1)).nonzero()[:, 0].tolist()
        if bad:
            more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
            raise UserError(f"{name} is not finite in the rows {bad[:10]}{more}.")
    weight = torch.as_tensor(l1_weight, dtype=torch.float64, device=start.device).detach()
    if weight.ndim and weight.shape != start.shape[:1]:
        raise UserError(
            f"l1_weight must be one number or of shape ({len(start)},); got {tuple(weight.shape)}."
        )
    if not bool((weight >= 0).all()):
        raise UserError("l1_weight must be finite and not negative.")
    return weight.expand(len(start))
