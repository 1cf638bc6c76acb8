import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyro_latents.errors import UserError
from pyro_latents.reproduce.parallel import in_processes

JOBS = """
import os, signal, sys, time
from pathlib import Path
from pyro_latents.reproduce.parallel import in_processes


def train(number):
    Path(sys.argv[1], str(number)).write_text(str(os.getpid()))
    if number > 1:
        raise ValueError("broken")
    while True:
        time.sleep(0.01)


if __name__ == "__main__":
    # A shell that starts it in the background would have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    in_processes(train, [int(number) for number in sys.argv[2:]], processes=2)
"""


def _fails(number: int) -> int:
    if number == 2:
        raise UserError("number 2 is wrong: give another.")
    return number * number


def test_jobs_come_back_in_order_and_the_longest_begin_first():
    begun = []

    def job(number: int) -> int:
        begun.append(number)
        return abs(number)

    assert in_processes(job, [-3, 1, -4], cost=abs, processes=1) == [3, 1, 4]
    assert begun == [-4, -3, 1]
    with pytest.raises(UserError, match="number 2 is wrong"):
        in_processes(_fails, [1, 2, 3], processes=1)


def test_processes_do_as_much():
    assert in_processes(abs, [-3, 1, -2], cost=abs, processes=2) == [3, 1, 2]


def begin(folder: Path, *numbers: int) -> tuple[subprocess.Popen, list[int]]:
    """Start jobs, and return their parent and their processes once they are at work."""
    script = folder / "jobs.py"
    script.write_text(JOBS)
    command = [sys.executable, str(script), str(folder), *map(str, numbers)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    files = [folder / str(number) for number in numbers]
    deadline = time.monotonic() + 120
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return parent, [int(file.read_text()) for file in files]


def is_running(process: int) -> bool:
    """Whether there is such a process, and it is not only waiting to be counted as ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(processes: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(map(is_running, processes)):
            return True
        time.sleep(0.05)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")


@needs_proc
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_no_process_outlives_the_parent(name, tmp_path):
    parent, processes = begin(tmp_path, 0, 1)
    parent.send_signal(signal.Signals[name])
    parent.communicate(timeout=60)
    assert parent.returncode != 0
    assert all_end(processes)


@needs_proc
def test_no_process_outlives_a_job_that_failed(tmp_path):
    parent, processes = begin(tmp_path, 0, 2)
    assert "ValueError: broken" in parent.communicate(timeout=60)[1]
    assert all_end(processes)
