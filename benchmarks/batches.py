"""How long a batch takes to make, for each maker.

    python benchmarks/batches.py [--data mnist] [--data-dir DIR] [--batch-size 100]
        [--device cuda] [--threads 1]

Makers take turns in every round, so that they share the machine's good and bad moments; the median
over the rounds is printed. What it is to be compared with is the training step that it feeds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from pyro_latents.data.batches import Batches, BatchMaker, Binarised, Plain
from pyro_latents.data.examples import Examples
from pyro_latents.data.sources import SOURCES, load
from pyro_latents.stories.vaells.images import RotatedWithAnchors

MAKERS: dict[str, Callable[[Examples], BatchMaker]] = {
    "plain": Plain,
    "binarised": Binarised,
    "rotated with anchors": RotatedWithAnchors,
}


def milliseconds(batches: Batches, epoch: int) -> float:
    """The mean time of a batch over an epoch, the drawing of its order included."""
    device = batches.maker.examples.device
    batches.set_epoch(epoch)
    start = time.perf_counter()
    for _ in batches:
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start) / len(batches)


def main() -> None:
    """Time every maker and print a line for each."""
    parser = argparse.ArgumentParser(description="Milliseconds a batch, for each maker.")
    images = [name for name, source in SOURCES.items() if len(source.shape) == 3]
    parser.add_argument("--data", choices=images, default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--batches", type=int, default=100, help="most batches in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    splits = load(
        options.data,
        options.data_dir,
        limit_train=options.batches * options.batch_size,
        device=options.device,
    )
    streams = {
        name: Batches(make(splits.train), options.batch_size, seed=0)
        for name, make in MAKERS.items()
    }
    for batches in streams.values():
        milliseconds(batches, epoch=0)
    times: dict[str, list[float]] = {name: [] for name in streams}
    for epoch in range(1, options.rounds + 1):
        for name, batches in streams.items():
            times[name].append(milliseconds(batches, epoch))

    shape = "x".join(map(str, splits.shape))
    print(f"{options.data} ({shape}), batches of {options.batch_size}, {options.device}")
    for name, rounds in times.items():
        median = statistics.median(rounds)
        print(f"{name:20s} {median:8.3f} ms  (fastest round {min(rounds):.3f})")


if __name__ == "__main__":
    main()
