"""Independent jobs of an experiment, one process a core."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch
from tqdm.auto import tqdm

from pyro_latents.memory import keep_freed_memory

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def in_processes(
    function: Callable[[Job], Outcome], jobs: Sequence[Job], *, description: str = ""
) -> list[Outcome]:
    """Apply a function to every job, in processes with one thread each.

    Small networks gain little from a second thread, and independent trainings all of it. With one
    core, one job, or a GPU that the processes would fight for, the jobs run here, in turn.

    Args:
        function: A function of one argument, at the top of a module.
        jobs: The arguments, which must be picklable; the longest jobs first.
        description: What the progress bar says.

    Returns:
        What the function returned, in the order of the jobs.
    """
    workers = min(len(os.sched_getaffinity(0)), len(jobs))
    if workers < 2 or torch.cuda.is_available():
        return [function(job) for job in tqdm(jobs, desc=description)]
    # A forked process would share the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_prepare) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(jobs), desc=description):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _prepare() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
