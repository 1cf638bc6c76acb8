"""Time the importance-weighted likelihood against a loop of single-particle evaluations.

    python benchmarks/log_evidence.py [--recipe vae-digits] [--images 1000] [--particles 1000]

The loop runs model and guide once for each image and particle, as one would with
`pyro.infer.Predictive` or a trace of a single data point; it is timed on a part of them, and its
whole time is that part scaled up, which is said in the result. Peak memory is that of the process,
for a small and for the full number of particles, each in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from pyro_latents import zoo
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.memory import keep_freed_memory

LOOPED = 200  # pairs of image and particle that the loop is timed on


def main() -> None:
    """Run the contest and print seconds, their ratio, and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="vae-digits")
    parser.add_argument("--networks", default="conv")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-only", action="store_true", help="print megabytes and stop")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    recipe = zoo.recipe(given.recipe, networks=given.networks)
    model, guide = recipe.model, recipe.guide
    x = torch.rand(given.images, *recipe.story.x_shape)

    began = time.perf_counter()
    log_evidence(model, guide, x, num_particles=given.particles)
    ours = time.perf_counter() - began
    if given.memory_only:
        print(_megabytes())
        return

    began = time.perf_counter()
    for i in range(LOOPED):
        row = i % len(x)
        log_evidence(model, guide, x[row : row + 1], num_particles=1)
    looped = (time.perf_counter() - began) / LOOPED * given.images * given.particles
    result = {
        "recipe": given.recipe,
        "networks": given.networks,
        "images": given.images,
        "particles": given.particles,
        "threads": given.threads,
        "seconds": round(ours, 2),
        "seconds_of_the_loop": round(looped, 2),
        "loop_timed_on": f"{LOOPED} of {given.images * given.particles} evaluations, scaled up",
        "ratio": round(looped / ours, 1),
        "megabytes": {str(k): _in_a_process(given, k) for k in (100, given.particles)},
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


def _in_a_process(given: argparse.Namespace, particles: int) -> int:
    command = [sys.executable, __file__, "--memory-only", "--recipe", given.recipe]
    command += ["--networks", given.networks, "--images", "50", "--particles", str(particles)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(printed.split()[-1])


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
