"""Time contestants in turns, so that a machine whose speed drifts treats them alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any


def in_turns(
    contestants: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warm_up: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Return the seconds of each contestant in each round after the warm-up.

    They are the processor's, unless another clock is given.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name, run in contestants.items():
            began = clock()
            run()
            if number >= warm_up:
                seconds[name].append(clock() - began)
    return seconds
