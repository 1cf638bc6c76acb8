"""Independent jobs of an experiment, one process a core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from pyro_latents.errors import UserError
from pyro_latents.memory import keep_freed_memory
from pyro_latents.progress import watched

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def in_processes(
    function: Callable[[Job], Outcome],
    jobs: Sequence[Job],
    *,
    cost: Callable[[Job], float] = lambda job: 0.0,
    processes: int | None = None,
    description: str = "",
) -> list[Outcome]:
    """Apply a function to every job, in processes with one thread each.

    Small networks gain little from a second thread, and independent trainings all of it. With one
    core, one job, or a GPU that the processes would fight for, the jobs run here, in turn. No
    process outlives this one, however it ends, nor a job that failed.

    Args:
        function: A function of one argument, at the top of a module.
        jobs: The arguments, which must be picklable.
        cost: How long a job takes, in any unit: the longest begin first.
        processes: How many at once; None for one a core.
        description: What the progress bar says.

    Returns:
        What the function returned, in the order of the jobs.
    """
    import torch

    order = sorted(range(len(jobs)), key=lambda i: -cost(jobs[i]))
    workers = min(processes or cores(), len(jobs))
    if workers < 2 or torch.cuda.is_available():
        done = {i: function(jobs[i]) for i in watched(order, description)}
        return [done[i] for i in range(len(jobs))]
    # A forked process would share the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    lifeline, _end = context.Pipe(duplex=False)
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(workers, context, _prepare, (lifeline,)) as pool:
        try:
            with _undisturbed():
                futures = {i: pool.submit(function, jobs[i]) for i in order}
            finished = as_completed(futures.values())
            for future in watched(finished, description, total=len(jobs)):
                future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a training was killed, by the system if memory was short: the same command goes "
                "on where it stopped."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()).difference(others):
                worker.terminate()
            raise
        return [futures[i].result() for i in range(len(jobs))]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes that an interrupt at the terminal does not reach; the parent tells them.

    What the parent is asked meanwhile it hears afterwards, so that none is left half started.
    """
    asked: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if here else ()
    handlers = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for each in asked:
            signal.raise_signal(each)


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    # Not every system knows which of them a process is kept to.
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _prepare(lifeline: Connection) -> None:
    threading.Thread(target=_leave_with, args=(lifeline,), daemon=True).start()
    # It takes seconds to import, in which the parent may end.
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()


def _leave_with(lifeline: Connection) -> None:
    """Leave as soon as the other end is closed: by the parent, or by the system at its end."""
    wait([lifeline])
    os._exit(1)
