"""Coefficient inference: one batched solve against a loop of conjugate-gradient solves.

    python benchmarks/coefficient_inference.py [--rounds 3] [--runs DIR] [--kinds learned]

The reference solves one pair after the other with ``scipy.optimize.minimize(method="CG")``
(tolerance 1e-7, at most 50 iterations), a dense ``scipy.linalg.expm`` and the analytic gradient
by one exponential of twice the size, from the starts of the original procedure. Both run on one
thread, in turn, in one process.

Four shapes of problem, those of the paper's experiments, and four kinds of operators:

* ``learned``: the operators of a spiral with the published eigenvalues on the swiss roll, and a
  rotation with three small operators on the circles; for the shapes of MNIST, operators fitted
  here by gradient descent to principal components of scikit-learn's digits, as there is no
  published checkpoint: four operators between digits of a class, and one between turned views of
  a digit. With ``--runs`` the state of our own trained runs is used instead, where there is one;
* ``random``: entries of scale 0.3;
* ``antisymmetric``: nearly so, of the same scale;
* ``initial``: entries of scale 0.01.

"No worse" counts problems whose objective exceeds the reference's by less than 1e-4 of it.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import expm
from scipy.ndimage import rotate
from scipy.optimize import minimize
from sklearn.datasets import load_digits

from pyro_latents.transport import infer_coefficients, transport

KINDS = ("learned", "random", "antisymmetric", "initial")
NOISE = 1e-3


@dataclass(frozen=True)
class Shape:
    """The problems of one training batch of an experiment."""

    batch: int
    z_dim: int
    num_operators: int
    num_anchors: int
    restarts: int
    zeta_q: float
    zeta_p: float


SHAPES = {
    "swiss roll": Shape(30, 2, 1, 4, 2, 1e-6, 5e-5),
    "circles": Shape(30, 2, 4, 3, 1, 1e-6, 5e-6),
    "natural MNIST": Shape(32, 6, 4, 8, 1, 1e-6, 1e-6),
    "rotated MNIST": Shape(32, 10, 1, 10, 1, 1e-6, 1e-6),
}


@dataclass(frozen=True)
class State:
    """Operators, codes of data points, and the encoded anchors of each."""

    psi: np.ndarray
    codes: np.ndarray
    anchors: np.ndarray


@dataclass(frozen=True)
class Problems:
    """Pairs to be joined by a path, with the reference's starts."""

    psi: np.ndarray
    start: np.ndarray
    end: np.ndarray
    weight: np.ndarray
    first: np.ndarray


def problems(shape: Shape, state: State, rng: np.random.Generator) -> Problems:
    """What one step infers: each sampled code from its encoding, and from every anchor."""
    rows = rng.choice(len(state.codes), shape.batch, replace=False)
    codes, anchors = state.codes[rows], state.anchors[rows]
    drawn = rng.laplace(size=(shape.batch, shape.num_operators))
    moved = transport(*(torch.as_tensor(a) for a in (state.psi, drawn, codes))).numpy()
    z = moved + NOISE * rng.standard_normal(codes.shape)
    start, end, weight = [codes], [z], [np.full(shape.batch, shape.zeta_q)]
    first = [rng.uniform(0, 1, drawn.shape)]
    pairs = shape.batch * shape.num_anchors
    for restart in range(shape.restarts):
        start.append(anchors.reshape(pairs, -1))
        end.append(np.repeat(z, shape.num_anchors, 0))
        weight.append(np.full(pairs, shape.zeta_p))
        # The original's first restart is in the negative orthant, its second in the positive.
        low = 2.5 * (restart - 1)
        first.append(rng.uniform(low, low + 2.5, (pairs, shape.num_operators)))
    return Problems(state.psi, *(np.concatenate(a) for a in (start, end, weight, first)))


def reference(p: Problems) -> np.ndarray:
    """The objectives that conjugate gradients reach, one problem after the other."""
    return np.array([_solve_one(p, i) for i in range(len(p.start))])


def _solve_one(p: Problems, i: int) -> float:
    d, weight = p.start.shape[1], p.weight[i]
    start, end = p.start[i], p.end[i]

    def objective(c: np.ndarray) -> tuple[float, np.ndarray]:
        a = np.tensordot(c, p.psi, 1)
        residual = expm(a) @ start - end
        block = np.zeros((2 * d, 2 * d))
        block[:d, :d] = block[d:, d:] = a.T
        block[:d, d:] = np.outer(residual, start)
        slope = np.tensordot(p.psi, expm(block)[:d, d:], 2)
        value = 0.5 * residual @ residual + weight * np.abs(c).sum()
        return value, slope + weight * np.sign(c)

    with np.errstate(all="ignore"):
        try:
            found = minimize(
                objective, p.first[i], jac=True, method="CG", tol=1e-7, options={"maxiter": 50}
            )
        except (ValueError, np.linalg.LinAlgError):
            return np.inf
    return found.fun if np.isfinite(found.fun) else np.inf


def ours(p: Problems, seed: int) -> np.ndarray:
    """The objectives of the batched solve."""
    tensors = (torch.as_tensor(a) for a in (p.psi, p.start, p.end, p.weight))
    generator = torch.Generator().manual_seed(seed)
    return infer_coefficients(*tensors, generator=generator)[1].numpy()


def synthetic(kind: str, shape: Shape, rng: np.random.Generator) -> State:
    """Operators unlike learned ones, with unrelated codes and anchors."""
    m, d = shape.num_operators, shape.z_dim
    psi = 0.3 * rng.standard_normal((m, d, d))
    if kind == "antisymmetric":
        psi = (psi - psi.transpose(0, 2, 1)) / np.sqrt(2) + 0.01 * rng.standard_normal(psi.shape)
    elif kind == "initial":
        psi = 0.01 * rng.standard_normal(psi.shape)
    codes = 0.3 * rng.standard_normal((shape.batch, d))
    anchors = 0.3 * rng.standard_normal((shape.num_anchors, d))
    return State(psi, codes, np.broadcast_to(anchors, (shape.batch, *anchors.shape)))


def learned(name: str, rng: np.random.Generator) -> State:
    """The state that training would reach."""
    if name == "swiss roll":
        return _spiral(rng)
    if name == "circles":
        return _circles(rng)
    return _digits(turned=name == "rotated MNIST")


def _spiral(rng: np.random.Generator) -> State:
    skew = np.array([[1.0, 0.15], [0.0, 0.9]])
    psi = skew @ [[-0.0026, -0.0267], [0.0267, -0.0026]] @ np.linalg.inv(skew)

    def roll(fraction: np.ndarray) -> np.ndarray:
        t = 1.5 * np.pi * (1 + 2 * fraction)
        return np.stack([t * np.cos(t), -t * np.sin(t)], -1) / 10 @ skew.T

    codes, anchors = roll(rng.uniform(size=500)), roll(np.linspace(0.1, 0.9, 4))
    return State(psi[None], codes, np.broadcast_to(anchors, (500, 4, 2)))


def _circles(rng: np.random.Generator) -> State:
    turn = 0.0335 * np.array([[0.0, -1.0], [1.0, 0.0]])
    scales = np.array([2e-4, 0.004, 0.0015, 0.0008])[:, None, None]
    psi = scales * rng.standard_normal((4, 2, 2))
    psi[0] += turn

    def circle(angle: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(angle), np.sin(angle)], -1)

    radius = rng.choice([0.5, 1.0], 500)
    codes = radius[:, None] * circle(rng.uniform(0, 2 * np.pi, 500))
    codes += 0.01 * rng.standard_normal(codes.shape)
    anchors = radius[:, None, None] * circle(2 * np.pi / 3 * np.arange(3))
    return State(psi, codes, anchors)


def _digits(*, turned: bool, steps: int = 250) -> State:
    data = load_digits()
    images, labels = data.images / 16, data.target
    rng = np.random.default_rng(0)
    if turned:
        images = images[:200]
        angles = rng.uniform(0, 350, len(images))
        views = [[_turn(im, 36.0 * k) for k in range(10)] for im in images]
        anchors = np.array(views).reshape(len(images), 10, -1)
        x = np.array([_turn(im, a) for im, a in zip(images, angles, strict=True)])
        nearest = np.round(angles / 36).astype(int) % 10
        shape = SHAPES["rotated MNIST"]
    else:
        rows = [rng.choice(np.flatnonzero(labels == k), 8, replace=False) for k in range(10)]
        x = images
        anchors = images.reshape(len(images), -1)[np.array(rows)][labels]
        shape = SHAPES["natural MNIST"]
    x = x.reshape(len(x), -1)
    mean = x.mean(0)
    axes = np.linalg.svd(x - mean, full_matrices=False)[2][: shape.z_dim].T
    codes, anchors = (x - mean) @ axes, (anchors - mean) @ axes
    scale = 1.7 * np.std(codes)
    codes, anchors = codes / scale, anchors / scale
    if not turned:
        nearest = ((anchors - codes[:, None]) ** 2).sum(-1).argmin(1)
    pairs = anchors[np.arange(len(codes)), nearest], codes
    psi = _fit(*(torch.as_tensor(p) for p in pairs), shape.num_operators, steps)
    return State(psi.numpy(), codes, anchors)


def _turn(image: np.ndarray, angle: float) -> np.ndarray:
    return rotate(image, angle, reshape=False, order=1)


def _fit(start: torch.Tensor, end: torch.Tensor, num_operators: int, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (num_operators, start.shape[1], start.shape[1])
    psi = (0.1 * torch.randn(size, generator=generator, dtype=start.dtype)).requires_grad_()
    optimizer = torch.optim.Adam([psi], 1e-2)
    for _ in range(steps):
        rows = torch.randint(len(start), (64,), generator=generator)
        c, _ = infer_coefficients(
            psi, start[rows], end[rows], 1e-3, generator=generator, search="local"
        )
        distance = (transport(psi, c, start[rows]) - end[rows]).square().sum(1).mean()
        optimizer.zero_grad()
        (0.5 * distance + 0.0025 * psi.square().sum()).backward()
        optimizer.step()
    return psi.detach()


def of_run(path: Path) -> State:
    """Operators, codes and anchors of a trained run."""
    from pyro_latents import zoo
    from pyro_latents.data.batches import Batches

    recipe = zoo.open_run(path).recipe
    model = recipe.model
    batch = next(iter(Batches(recipe.batches("test"), 500, seed=0, shuffle=False)))
    x, y, anchors = (*batch, None, None)[:3]
    with torch.no_grad():
        codes = model.encoder(x) / model.operators.scale
        starts = model.starts(y, anchors).expand(len(x), -1, -1)
    return State(*(t.double().numpy() for t in (model.operators.psi.detach(), codes, starts)))


def main() -> None:
    """Run the comparison and print one row a shape and kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed solves of ours; best counts")
    parser.add_argument("--batches", type=int, default=1, help="batches of each shape and kind")
    parser.add_argument("--runs", type=Path, help="folder with runs vaells-swiss-roll, ...")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, everything = [], {}
    for name in options.shapes:
        shape = SHAPES[name]
        for kind in options.kinds:
            rng = np.random.default_rng([KINDS.index(kind), list(SHAPES).index(name)])
            run = options.runs and options.runs / f"vaells-{name.lower().replace(' ', '-')}"
            if kind != "learned":
                state = synthetic(kind, shape, rng)
            elif run and run.exists():
                state = of_run(run)
                shape = replace(shape, num_operators=len(state.psi))
            else:
                state = learned(name, rng)
            row = _compare(shape, state, rng, options)
            rows.append({"shape": name, "kind": kind, **row})
            everything.setdefault(name, []).append((row["no_worse"], row["problems"]))
            print(
                f"{name:14} {kind:14} {row['problems']:5d} problems, reference "
                f"{row['reference_s']:7.2f} s, ours {1e3 * row['ours_s']:7.1f} ms, ratio "
                f"{row['ratio']:6.0f}, no worse {row['no_worse']:.4f}, sum of objectives "
                f"{row['sum_ours']:.4g} / {row['sum_reference']:.4g}",
                flush=True,
            )
    on_learned = [r for r in rows if r["kind"] == "learned"]
    ratio = None
    if on_learned:
        ratio = sum(r["reference_s"] for r in on_learned) / sum(r["ours_s"] for r in on_learned)
        print(f"learned problems in total: {ratio:.0f} times faster")
    for name, parts in everything.items():
        share = sum(w * n for w, n in parts) / sum(n for _, n in parts)
        print(f"{name}: no worse on {share:.4f} of all problems")
    if options.out:
        options.out.write_text(json.dumps({"rows": rows, "learned_ratio": ratio}, indent=1))


def _compare(
    shape: Shape, state: State, rng: np.random.Generator, options: argparse.Namespace
) -> dict:
    spent, spent_reference, count, good, sums = 0.0, 0.0, 0, 0, np.zeros(2)
    for batch in range(options.batches):
        p = problems(shape, state, rng)
        ours(p, batch)
        times = []
        for _ in range(options.rounds):
            began = time.process_time()
            found = ours(p, batch)
            times.append(time.process_time() - began)
        spent += min(times)
        began = time.process_time()
        theirs = reference(p)
        spent_reference += time.process_time() - began
        good += int((found <= theirs * (1 + 1e-4) + 1e-14).sum())
        count += len(found)
        sums += found.sum(), np.nan_to_num(theirs, posinf=0.0).sum()
    return {
        "problems": count,
        "reference_s": spent_reference,
        "ours_s": spent,
        "ratio": spent_reference / spent,
        "no_worse": good / count,
        "sum_ours": sums[0],
        "sum_reference": sums[1],
    }


if __name__ == "__main__":
    main()
