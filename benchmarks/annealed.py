"""Measure the interval of annealing on data simulated from trained runs, and what it costs.

    python benchmarks/annealed.py RUN ... [--images 100] [--chains 8] [--temperatures 100]

For each run, on data simulated from its model: the mean width of the interval with its standard
error, the widest, and how many are above two nats; on the first test images: the lower bound of
annealing beside importance sampling with 1,000 particles. Seconds are those of the processor for
the interval, adaptation and both directions, an image and on all threads together.
"""

import argparse
import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from pyro_latents import zoo
from pyro_latents.evaluation import annealed_evidence, evidence_interval
from pyro_latents.evaluation.evidence import log_evidence
from pyro_latents.evaluation.paired import standard_error
from pyro_latents.reproduce.experiment import hardware
from pyro_latents.runs.annealing import points_alone
from pyro_latents.text import aligned

PARTICLES = 1000


def measured(path: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return a row of figures of a run."""
    run = zoo.open_run(path, data_dir=given.data_dir)
    model, guide, x = points_alone(run.parts, run.parts.batches("test"), given.images)
    counts = {"num_chains": given.chains, "num_temperatures": given.temperatures}
    torch.manual_seed(given.seed)
    began, seconds = time.perf_counter(), time.process_time()
    lower, upper = evidence_interval(model, guide, x, **counts)
    seconds, took = time.process_time() - seconds, time.perf_counter() - began
    width = (upper - lower).double()
    row = {
        "recipe": run.config["recipe"],
        "images": len(x),
        "lower": lower.mean().item(),
        "upper": upper.mean().item(),
        "width": width.mean().item(),
        "width_se": standard_error(width),
        "widest": width.max().item(),
        "above_2": int((width > 2).sum()),
        "cpu_seconds_per_image": seconds / len(x),
        "wall_seconds_per_image": took / len(x),
    }
    if given.test_images:
        x = x[: given.test_images]
        annealed = annealed_evidence(model, guide, x, **counts).log_evidence
        weighted = log_evidence(model, guide, x, num_particles=PARTICLES).log_evidence
        gain = (annealed - weighted).double()
        row |= {"test_images": len(x), "ais": annealed.mean().item()}
        row |= {"ais_less_iwae": gain.mean().item()}
        row |= {"ais_less_iwae_se": standard_error(gain)}
    return row


def main() -> None:
    """Measure each run, and print a table and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--images", type=int, default=100, help="simulated ones")
    parser.add_argument("--test-images", type=int, default=0, help="of the test data, beside IWAE")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--temperatures", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measured(path, given) for path in given.runs]
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[name, *(_shown(row.get(name, "")) for row in rows)] for name in names]
    print(aligned(cells, right=True))
    result = {
        "command": "python benchmarks/annealed.py RUN ...",
        "date": date.today().isoformat(),
        "hardware": hardware(),
        **{k: getattr(given, k) for k in ("chains", "temperatures", "threads", "seed")},
        "rows": rows,
    }
    print(json.dumps(result))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
