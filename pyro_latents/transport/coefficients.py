r"""Coefficient inference: the path between two points along the transport operators."""

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_latents.errors import UserError
from pyro_latents.transport.exponential import check_operators
from pyro_latents.transport.line import search_line
from pyro_latents.transport.newton import minimise
from pyro_latents.transport.nodes import best_by_pattern, exponentials, objectives_at, spread
from pyro_latents.transport.series import SeriesProblem

Search = Literal["local", "wide", "global"]

# Of the random starts, as in the procedure that the paper's runs used.
_START_RANGE = 2.5
# For one operator: norms of the generator that the shared nodes reach to.
_RADIUS = {"wide": 15.0, "global": 60.0}


class _Plan(NamedTuple):
    """How several operators are searched: nodes that all pairs share, then descents.

    Attributes:
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


class _Pairs(NamedTuple):
    """What is solved, in float64: operators of norm one, starts, ends, and weights of each."""

    psi: Tensor
    start: Tensor
    end: Tensor
    weight: Tensor


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
    and the descent starts from the best of those as well. On a CPU, and in the plane, a compiled
    loop descends pair by pair, among torch's threads (its first call on a machine compiles, for a
    quarter of a minute); elsewhere all pairs descend together. The answer is found in float64,
    nothing is differentiated, and a pair's answer does not depend on the other pairs, but for the
    rounding that may decide between two of its starts: the starts, random ones included, are the
    same for every pair. The answer is never worse than c = 0.

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
    pairs, norms, dtype = _prepared(psi, start, end, l1_weight)
    _check_search(len(psi), restarts, search)
    if not len(start):
        return start.new_empty(0, len(psi), dtype=dtype), start.new_empty(0, dtype=dtype)
    device = norms.device if generator is None else generator.device
    shape = (restarts, len(psi))
    uniform = torch.rand(shape, generator=generator, dtype=norms.dtype, device=device)
    starts = (2 * uniform.to(norms.device) - 1) * _START_RANGE * norms
    if len(psi) == 1 and search != "local":
        unit, weight = pairs.psi[0], pairs.weight[:, 0]
        found, objective = search_line(unit, pairs.start, pairs.end, weight, _RADIUS[search])
        found = found[:, None]
    else:
        found, objective = _search_space(pairs, starts, search)
    nothing = 0.5 * (pairs.end - pairs.start).square().sum(1)
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
    pairs, norms, dtype = _prepared(psi, start, end, l1_weight)
    plan = _plan(pairs)
    c = (first.detach().to(norms) * norms).permute(2, 0, 1)
    found, objective = _best(*_minimise(pairs, c, plan.stages[-1][1], plan.tolerance, exact=True))
    return (found / norms).to(dtype), objective.to(dtype)


def _plan(pairs: _Pairs) -> _Plan:
    return _PLANE if pairs.start.shape[1] == 2 else _SPACE


def _search_space(pairs: _Pairs, starts: Tensor, search: Search) -> tuple[Tensor, Tensor]:
    """Descend from several starts a pair, dropping the worse ones on the way."""
    plan = _plan(pairs)
    # A start far out only overflows; the direction is what the restart is for.
    length = starts.abs().sum(1, keepdim=True)
    starts = starts * (_LONGEST_START / length.clamp_min(1.0)).clamp_max(1.0)
    fixed = F.pad(starts, (0, 0, 1, 0))
    c = fixed.T[:, :, None].expand(-1, -1, len(pairs.start))
    if search != "local":
        # Only their order matters, and single precision keeps it.
        coarse = _Pairs(*(part.float() for part in pairs))
        nodes = spread(len(c), plan.nodes, plan.radius).to(coarse.psi)
        best = best_by_pattern(_objectives(nodes, coarse), plan.kept)
        c = torch.cat([c, nodes.flatten(0, 1)[best].to(c).permute(2, 1, 0)], 1)
    objective = None
    for kept, iterations, exact in plan.stages:
        if objective is not None:
            _, best = objective.topk(min(kept, len(objective)), 0, largest=False)
            c = c.gather(1, best.expand(len(c), -1, -1))
        c, objective = _minimise(pairs, c, iterations, plan.tolerance, exact=exact)
    assert objective is not None
    return _best(c, objective)


def _objectives(nodes: Tensor, pairs: _Pairs) -> Tensor:
    """The objective of every pair at every node, of shape `batch patterns each`."""
    flat = nodes.flatten(0, 1)
    objective = objectives_at(exponentials(pairs.psi, flat), pairs.start, pairs.end)
    return (objective + pairs.weight @ flat.abs().T).unflatten(1, nodes.shape[:2])


def _minimise(
    pairs: _Pairs, c: Tensor, iterations: int, tolerance: float, *, exact: bool
) -> tuple[Tensor, Tensor]:
    """Descend from the starts `c`, `num_operators starts batch`: where to, and how deep."""
    start, end, weight = (part.T.repeat(1, c.shape[1]) for part in pairs[1:])
    paths, first = (pairs.psi, start, end), c.flatten(1)
    if _one_by_one(c.device, len(start)):
        # Numba takes half a second to import.
        from pyro_latents.transport.compiled_newton import minimise_each

        found, objective = minimise_each(*paths, first, weight, iterations, tolerance, exact)
    else:
        # Coarse descents are in single precision.
        number = torch.float64 if exact else torch.float32
        problem, first = SeriesProblem(*(part.to(number) for part in paths)), first.to(number)
        found, objective = minimise(
            problem, first, weight.to(number), iterations, tolerance, exact
        )
    return found.to(c).view(c.shape), objective.to(c).view(c.shape[1:])


def _one_by_one(device: torch.device, z_dim: int) -> bool:
    """Whether a compiled loop descends; in the plane, where it has a closed form, always."""
    return device.type == "cpu" or z_dim == 2


def _best(c: Tensor, objective: Tensor) -> tuple[Tensor, Tensor]:
    """The best descent of each pair, `batch num_operators`, and its objective, `batch`."""
    objective, best = objective.min(0)
    return c.gather(1, best.expand(len(c), 1, -1))[:, 0].T, objective


def _prepared(
    psi: Tensor, start: Tensor, end: Tensor, l1_weight: float | Tensor
) -> tuple[_Pairs, Tensor, torch.dtype]:
    """What is solved, the norms that operators had, and the dtype of the answer; or an error."""
    check_operators(psi)
    if start.ndim != 2 or start.shape[1] != psi.shape[1] or end.shape != start.shape:
        raise UserError(
            f"infer_coefficients expects start and end of shape (batch, {psi.shape[1]}), as psi "
            f"has the shape {tuple(psi.shape)}; got {tuple(start.shape)} and {tuple(end.shape)}."
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
    dtype = start.dtype if start.is_floating_point() else torch.get_default_dtype()
    psi, start, end = (part.detach().to(torch.float64) for part in (psi, start, end))
    # An operator of norm zero moves nothing; a tiny norm in its place keeps the division finite.
    norms = torch.linalg.matrix_norm(psi, 2).clamp_min(torch.finfo(torch.float64).tiny ** 0.5)
    weight = weight.expand(len(start))[:, None] / norms
    return _Pairs(psi / norms[:, None, None], start, end, weight), norms, dtype


def _check_search(num_operators: int, restarts: int, search: Search) -> None:
    if restarts < 1:
        raise UserError(f"restarts must be at least 1; got {restarts}.")
    if search not in get_args(Search):
        raise UserError(f"search must be one of {', '.join(get_args(Search))}; got {search!r}.")
    if search == "global" and num_operators > 1:
        raise UserError(
            f"search='global' needs a single operator; psi has {num_operators}. Use search='wide'."
        )
