"""Every story on an accelerator, compared with the CPU: one command, some minutes.

    python benchmarks/gpu.py [RECIPE ...]

For each recipe, on both at once: the log-density of model over guide at the centres of the guide,
for one batch and the first parameters, and its gradient (they draw nothing, so they must agree);
then a short training, `evaluate` and `check`, whose draws differ, so that the bounds agree
roughly; and the coefficients between fixed pairs of codes. Prints a table, and exits with 1 where
something failed. Where there is no accelerator it says so and exits with 0; `--device cpu` tries
the program.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_latents import zoo
from pyro_latents.files import write_json
from pyro_latents.programs import Centred, evaluation_mode, local_parameters
from pyro_latents.runs.checking import check
from pyro_latents.stories.story import Parts
from pyro_latents.text import aligned
from pyro_latents.transport import infer_coefficients

RECIPES = (
    "vae-digits",
    "triplet-tvae-digits",
    "pose-tvae-digits",
    "pose-dtvae-digits",
    "equivae-digits",
    "equivae-semi-digits",
    "vaells-digits",
    "vaells-rotated-digits",
    "vaells-swiss-roll",
)
STEPS = 30
# Largest relative differences: single precision summed in another order; other draws; double.
DENSITY, GRADIENT, BOUND, SOLVE = 1e-4, 1e-3, 0.15, 1e-6


def at_the_centre(parts: Parts, device: str) -> tuple[Tensor, Tensor]:
    """Return the log-density of a batch at the guide's centres, and its gradient as one vector."""
    batch = parts.first_batch("test", size=20)  # on the CPU, whose draws the others do not have
    parts.to(device)
    batch = tuple(each.to(device) if isinstance(each, Tensor) else each for each in batch)
    programs = nn.ModuleList([parts.model, parts.guide])
    with local_parameters(*programs), evaluation_mode(*programs):
        guide = poutine.trace(Centred()(parts.guide)).get_trace(*batch)
        replayed = Centred()(poutine.replay(parts.model, guide))
        model = poutine.trace(replayed).get_trace(*batch)
        density = (model.log_prob_sum() - guide.log_prob_sum()) / len(batch[0])
        assert isinstance(density, Tensor)
        density.backward()
    gradients = [p.grad.flatten() for p in programs.parameters() if p.grad is not None]
    return density.detach().cpu(), torch.cat(gradients).cpu()


def solved(device: str) -> Tensor:
    """Return the objectives of the coefficients between fixed pairs of codes."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 6, 6), (50, 6), (50, 6))
    psi, start, end = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(device) for shape in shapes
    )
    return infer_coefficients(psi / 3, start, end, 0.01)[1].cpu()


def trained(name: str, folder: Path, device: str) -> dict[str, Any]:
    """Train, evaluate and check a recipe; return what was measured."""
    began = time.perf_counter()
    accelerator = "cpu" if device == "cpu" else "gpu"
    run = zoo.recipe(name).train(folder, steps=STEPS, accelerator=accelerator, progress=False)
    seconds = time.perf_counter() - began
    with open(run.folder.history_path, newline="") as file:
        loss = float(list(csv.DictReader(file))[-1]["loss"])
    found = run.evaluate(particles=50, likelihood_points=20, limit_test=100)
    check(run, images=30, draws=20)
    return {"seconds": seconds, "loss": loss, "bound": found["elbo"]}


def measure(name: str, out: Path, device: str) -> dict[str, Any]:
    """Return all that is measured of a recipe on a device, or how it failed."""
    try:
        density, gradient = at_the_centre(zoo.recipe(name), device)
        torch.save(gradient, out / f"{name}.pt")
        return {"density": float(density), **trained(name, out / name, device)}
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]}


def work(names: list[str], out: Path, device: str) -> None:
    """Measure the recipes, one after the other, and write what was found."""
    # Three digits, as on newer devices by default, would say nothing of the program.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    found = {name: measure(name, out, device) for name in names}
    torch.save(solved(device), out / "solved.pt")
    write_json(out / "found.json", found)


def compared(name: str, ours: dict[str, Any], theirs: dict[str, Any], folders: list[Path]) -> list:
    """Return a row of the table: the CPU's numbers, the device's, and what is wrong."""
    failed = ours.get("failed") or theirs.get("failed")
    if failed:
        return [name, *[""] * 6, failed]
    one, other = (torch.load(folder / f"{name}.pt", weights_only=True) for folder in folders)
    off = {
        "density": (abs(ours["density"] / theirs["density"] - 1), DENSITY),
        "gradient": (float((one - other).norm() / one.norm()), GRADIENT),
        "bound": (abs(ours["bound"] / theirs["bound"] - 1), BOUND),
    }
    # Written so that what is not a number is wrong.
    wrong = [what for what, (found, largest) in off.items() if not found <= largest]
    return [
        name,
        *(f"{off[what][0]:.0e}" for what in ("density", "gradient")),
        *(f"{measured['bound']:.1f}" for measured in (ours, theirs)),
        *(f"{measured['seconds']:.0f}" for measured in (ours, theirs)),
        f"{', '.join(wrong)} differs" if wrong else "",
    ]


def both(names: list[str], device: str, folder: Path) -> list[Path]:
    """Measure on the CPU and on the device, each in a process of its own, at the same time."""
    workers: list[tuple[Path, subprocess.Popen]] = []
    for kind, seen in (("cpu", {"CUDA_VISIBLE_DEVICES": ""}), (device, {})):
        out = folder / f"{len(workers)}"
        out.mkdir()
        command = [sys.executable, __file__, *names, "--device", kind, "--into", str(out)]
        workers.append((out, subprocess.Popen(command, env={**os.environ, **seen})))
    for out, worker in workers:
        if worker.wait():
            raise SystemExit(f"the process of {out} ended with {worker.returncode}.")
    return [out for out, _ in workers]


def report(names: list[str], folders: list[Path], say: Callable[[str], None] = print) -> bool:
    """Print the table and return whether all is well."""
    ours, theirs = (json.loads((folder / "found.json").read_text()) for folder in folders)
    heads = ["", "density", "gradient", "bound", "device's", "seconds", "device's", ""]
    rows = [compared(name, ours[name], theirs[name], folders) for name in names]
    say(aligned([heads, *rows], right=True))
    one, other = (torch.load(folder / "solved.pt", weights_only=True) for folder in folders)
    # The device may find better minima, and none that are worse by more than rounding.
    solve = float(((other - one) / one).max())
    say(f"coefficients: objectives of the device above those of the CPU by at most {solve:.0e}")
    return not any(row[-1] for row in rows) and solve <= SOLVE


def main() -> None:
    """Compare the accelerator of this machine with its CPU."""
    parser = argparse.ArgumentParser(description="Every story on an accelerator and on the CPU.")
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into:
        return work(given.recipes, given.into, given.device)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("there is no accelerator here: nothing was compared.")
        return None
    with tempfile.TemporaryDirectory() as folder:
        folders = both(given.recipes, given.device, Path(folder))
        sys.exit(0 if report(given.recipes, folders) else 1)


if __name__ == "__main__":
    main()
