"""Processes that are asked to end, and outputs that take no more: exit codes, one line, no process
left.

Most of them are forked from one in which all is imported: a start takes seconds.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from faults.conftest import SMALL

from pyro_latents.cli import main

PROGRAM = [sys.executable, "-m", "pyro_latents"]
TRAIN = ["train", "vae-digits", *SMALL.split(), "--out", "run"]
ENDLESS = [*TRAIN, "--epochs", "1000000"]
TWO = [*ENDLESS, "--devices", "2"]
REPRODUCE = ["reproduce", "vive-table1", "--data", "digits", "--budget", "quick", "--out", "out"]
LINES = {
    signal.SIGTERM: (143, "pyro-latents: terminated."),
    signal.SIGINT: (130, "pyro-latents: stopped."),
}
FULL = "pyro-latents: error: the output cannot be written: No space left on device."
# Enough on a machine that has other things to do.
PATIENCE = 120

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def in_group(leader: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            number = int(entry.name)
            state, _, group, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(group) == leader and state != "Z":
                found.append(number)
    return found


def program(arguments, folder, streams):
    """Be the program in a process group of its own, with these files for its streams."""
    os.setsid()
    os.chdir(folder)
    for number, (name, path) in enumerate(
        zip(("stdin", "stdout", "stderr"), streams, strict=True)
    ):
        with suppress(OSError):
            os.close(number)
        setattr(sys, name, None)
        if path is not None:
            handle = unread() if path == "unread" else os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(handle, number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))
    sys.argv = ["pyro-latents", *arguments]
    # Other ranks and workers are started by this name.
    sys.modules["__main__"].__spec__ = find_spec("pyro_latents.__main__")
    status = main(arguments)
    # What they do not take, multiprocessing would mind.
    sys.stdout = sys.stderr = None
    sys.exit(status)


def unread():
    """Return an output whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.fixture(scope="module")
def prepared():
    """The context of processes that have imported everything, with one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("forkserver")
        imported = ("runs.recipe", "training.fit", "reproduce.tables")
        context.set_forkserver_preload(
            [__name__, *(f"pyro_latents.{module}" for module in imported)]
        )
        yield context


@pytest.fixture
def start(prepared, tmp_path):
    """Return what starts the program, which is gone afterwards, with all of its group."""
    started = []

    def begin(arguments, streams=("/dev/null", "/dev/null", "stderr")):
        process = prepared.Process(target=program, args=(arguments, str(tmp_path), streams))
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()


def told(tmp_path):
    stderr = tmp_path / "stderr"
    return stderr.read_text().splitlines() if stderr.exists() else []


def wait_until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_ends(process, status, lines, tmp_path):
    process.join(PATIENCE)
    assert process.exitcode == status
    assert [said for said in told(tmp_path) if not said.startswith("epoch ")] == lines
    wait_until(lambda: not in_group(process.pid))


ASKED = {
    "terminated": (ENDLESS, signal.SIGTERM, os.kill),
    "interrupted": (ENDLESS, signal.SIGINT, os.killpg),
    "two devices, terminated": (TWO, signal.SIGTERM, os.kill),
    "two devices, all terminated": (TWO, signal.SIGTERM, os.killpg),
    "two devices, interrupted": (TWO, signal.SIGINT, os.killpg),
    "workers, terminated": (REPRODUCE, signal.SIGTERM, os.kill),
    "workers, interrupted": (REPRODUCE, signal.SIGINT, os.killpg),
}


@pytest.mark.parametrize(("arguments", "number", "send"), ASKED.values(), ids=ASKED)
def test_a_program_ends_when_asked(arguments, number, send, start, tmp_path):
    process = start(arguments)
    if arguments == REPRODUCE:
        wait_until(lambda: len(in_group(process.pid)) > 1)
    else:
        wait_until(lambda: told(tmp_path))
    send(process.pid, number)
    status, line = LINES[number]
    assert_ends(process, status, [line], tmp_path)


@pytest.mark.parametrize("number", LINES)
def test_a_program_ends_while_it_imports(number, tmp_path):
    """The C++ of a module that is imported would abort at an exception."""
    (tmp_path / "slow.py").write_text(f"import os, time\nos.kill(os.getpid(), {number:d})\n")
    code = (
        "import sys; from pyro_latents import cli; cli._run = __import__; sys.exit(cli.main('x'))"
    )
    code = (
        "import sys\nfrom pyro_latents import cli\n"
        "cli._run = lambda arguments: __import__('slow')\nsys.exit(cli.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    status, line = LINES[number]
    assert done.returncode == status
    assert done.stderr.decode() == f"{line}\n"


def test_no_worker_outlives_a_killed_program(tmp_path):
    process = subprocess.Popen(
        [*PROGRAM, *REPRODUCE], cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
    )
    # The program itself, what watches over shared memory, and at least a worker.
    wait_until(lambda: len(in_group(process.pid)) > 2)
    process.kill()
    process.wait()
    wait_until(lambda: not in_group(process.pid))


def test_a_killed_rank_is_told(start, tmp_path):
    process = start(TWO)
    wait_until(lambda: told(tmp_path))
    (other,) = set(in_group(process.pid)) - {process.pid}
    os.kill(other, signal.SIGKILL)
    process.join(PATIENCE)
    assert process.exitcode == 2
    *_, line = told(tmp_path)
    assert line.startswith("pyro-latents: error: the process of another device has ended")
    assert not in_group(process.pid)


# Input, output and error stream of a program, None where there is none, and its exit status.
STREAMS = {
    "no output": (("/dev/null", None, "stderr"), 0),
    "a full output": (("/dev/null", "/dev/full", "stderr"), 2),
    "no error stream": (("/dev/null", "stdout", None), 0),
    "a full error stream": (("/dev/null", "stdout", "/dev/full"), 0),
    "no stream at all": ((None, None, None), 0),
    "a reader that has seen enough": (("/dev/null", "unread", "unread"), 0),
}


@pytest.mark.parametrize(("streams", "status"), STREAMS.values(), ids=STREAMS)
def test_a_training_does_not_depend_on_who_reads(streams, status, start, tmp_path):
    process = start([*TRAIN, "--epochs", "5"], streams)
    assert_ends(process, status, [FULL] if status else [], tmp_path)
    assert (tmp_path / "run" / "history.csv").read_text().splitlines()[-1].startswith("5,15,")
    assert (tmp_path / "run" / "checkpoint.ckpt").exists()


def test_a_full_output_is_told_of_a_training_s_help(start, tmp_path):
    process = start(["train", "vae-digits", "--help"], ("/dev/null", "/dev/full", "stderr"))
    assert_ends(process, 2, [FULL], tmp_path)


# How a shell runs the program, its exit status, and what is left of what it says.
SHELLS = {
    "{program} list >&-": (0, ""),
    "{program} list >/dev/full": (2, f"{FULL}\n"),
    "{program} --help >/dev/full": (2, f"{FULL}\n"),
    "{program} list 2>&-": (0, ""),
    "{program} trian 2>&-": (2, ""),
    "{program} trian 2>/dev/full": (2, ""),
    "{program} list <&- >&- 2>&-": (0, ""),
    "{program} list 2>&1 | true": (0, ""),
}


@pytest.mark.parametrize(("shell", "ending"), SHELLS.items(), ids=SHELLS)
def test_a_program_whose_streams_are_a_shell_s(shell, ending):
    line = "set -o pipefail; " + shell.format(program=f"'{sys.executable}' -m pyro_latents")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == ending


def test_there_are_no_bars_where_there_is_no_terminal(run, start, tmp_path):
    evaluate = ["evaluate", "run", "--particles", "3", "--limit-test", "4"]
    assert_ends(start(evaluate), 0, [], tmp_path)
    assert told(tmp_path) == []
