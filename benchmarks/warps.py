"""A thin plate spline whose system is solved once against solving it for every image.

Both warp the same batch by the same parameters, forward and backward, in one process; the solving
one is written as other packages do it: a linear system per image and call, radial terms at every
pixel, then `grid_sample`. Run it with one thread for steady figures::

    OMP_NUM_THREADS=1 python benchmarks/warps.py
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_latents.warps import ThinPlateSpline, pixel_grid

TARGET = 5.0


def radial(points: Tensor, control: Tensor) -> Tensor:
    """Return `r^2 log r` between two sets of points, `batch n m`."""
    squared = (points.unsqueeze(-2) - control.unsqueeze(-3)).square().sum(-1)
    return 0.5 * squared * (squared + 1e-12).log()


def solve_per_image(image: Tensor, parameters: Tensor, control: Tensor, pixels: Tensor) -> Tensor:
    """Warp by thin plate splines, solving one linear system for every image."""
    batch, _, height, width = image.shape
    n = len(control)
    control, pixels = control.expand(batch, -1, -1), pixels.expand(batch, -1, -1)
    affine = torch.cat([torch.ones(batch, n, 1), control], dim=-1)
    lower = torch.cat([affine.mT, torch.zeros(batch, 3, 3)], dim=-1)
    system = torch.cat([torch.cat([radial(control, control), affine], dim=-1), lower], dim=-2)
    moved = control + parameters.unflatten(-1, (n, 2))
    weights = torch.linalg.solve(system, F.pad(moved, (0, 0, 0, 3)))
    terms = torch.cat([torch.ones_like(pixels[..., :1]), pixels], dim=-1)
    points = radial(pixels, control) @ weights[:, :n] + terms @ weights[:, n:]
    return F.grid_sample(image, points.view(batch, height, width, 2), align_corners=True)


def interleaved(calls: list[Callable[[], None]], repeats: int) -> list[float]:
    """Return each call's median time in seconds, the calls taking turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def compare(batch: int, num_control: int, repeats: int) -> float:
    """Print the two times and return their ratio."""
    torch.manual_seed(0)
    warp = ThinPlateSpline((28, 28), num_control)
    image = torch.rand(batch, 1, 28, 28, requires_grad=True)
    parameters = (0.1 * torch.randn(batch, warp.num_parameters)).requires_grad_()
    pixels = pixel_grid((28, 28)).float()

    def ours() -> Tensor:
        return warp(image, parameters)

    def theirs() -> Tensor:
        return solve_per_image(image, parameters, warp.control, pixels)

    def forward_backward(call: Callable[[], Tensor]) -> None:
        image.grad = parameters.grad = None
        call().sum().backward()

    torch.testing.assert_close(ours(), theirs(), atol=1e-3, rtol=0)
    fast, slow = interleaved([partial(forward_backward, call) for call in (ours, theirs)], repeats)
    print(
        f"{batch} images, {num_control}x{num_control} control points: factored once "
        f"{fast * 1e3:.2f} ms, solved per image {slow * 1e3:.2f} ms, ratio {slow / fast:.1f}"
    )
    return slow / fast


def main() -> None:
    """Compare on the thesis' grid and on a finer one, and exit non-zero below the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    ratios = [compare(batch, s, repeats) for batch in (64, 256) for s in (3, 4)]
    print(f"smallest ratio {min(ratios):.1f}, at least {TARGET:g} wanted")
    raise SystemExit(min(ratios) < TARGET)


if __name__ == "__main__":
    main()
