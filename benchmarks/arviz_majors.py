"""Open a check that was made under one major version of ArviZ with the other, and back.

    python benchmarks/arviz_majors.py PYTHON PYTHON

Each PYTHON is a command that runs an interpreter with this package and an ArviZ: a path, or words
like ``"chroot FOLDER /venv/bin/python"``. Files go from one to the other through pipes, so the two
need no folder in common. The reader has ArviZ alone: it may not import this package.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from typing import Any

# Both programs write to the real standard output what the other side wants, and nothing else.
MAKE = """
import contextlib, pathlib, sys, tempfile
from pyro_latents.cli import main
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
    run = folder + "/run"
    assert main(["train", "vae-digits", "--steps", "20", "--out", run]) == 0
    assert main(["check", run, "--images", "30", "--draws", "40"]) == 0
    content = pathlib.Path(run, "checks", "check.nc").read_bytes()
sys.stdout.buffer.write(content)
"""
OPEN = """
import hashlib, json, pathlib, sys, tempfile, warnings
warnings.simplefilter("ignore")
import arviz, matplotlib
matplotlib.use("agg")

def digest(values):
    return hashlib.sha256(values.astype("float64").tobytes()).hexdigest()

with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "check.nc")
    path.write_bytes(sys.stdin.buffer.read())
    data = arviz.from_netcdf(path)
    groups = {
        group: {
            name: [list(array.dims), list(array.shape), digest(array.values)]
            for name, array in data[group].data_vars.items()
        }
        for group in sorted(data)
    }
    old = arviz.__version__.startswith("0.")
    loo = round(float(arviz.loo(data).elpd_loo if old else arviz.loo(data).elpd), 1)
    attributes = {group: data[group].attrs["inference"] for group in sorted(data)}
    if old:
        arviz.plot_bpv(data, kind="u_value", var_names=["ink"])
    else:
        arviz.plot_ppc_pit(data, var_names=["ink"], backend="matplotlib")
assert "pyro_latents" not in sys.modules
found = {"version": arviz.__version__, "groups": groups, "attributes": attributes, "loo": loo}
print(json.dumps(found))
"""


def main() -> int:
    """Make and open a check with each of both; return 1 where what was read differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", nargs=2, help="a command that runs a Python")
    pythons = [shlex.split(python) for python in parser.parse_args().python]
    failed = False
    for maker, other in (pythons, pythons[::-1]):
        content = _run(maker, MAKE, b"")
        mine, theirs = (json.loads(_run(python, OPEN, content)) for python in (maker, other))
        same = all(mine[part] == theirs[part] for part in ("groups", "attributes", "loo"))
        variables = sum(map(len, mine["groups"].values()))
        print(
            f"made under ArviZ {mine['version']}, opened under {theirs['version']}: "
            f"{len(mine['groups'])} groups, {variables} variables, "
            f"{'the same' if same else _differences(mine, theirs)}"
        )
        failed |= not same
    return int(failed)


def _run(python: list[str], program: str, given: bytes) -> bytes:
    """Return what a program writes to its standard output."""
    done = subprocess.run(
        [*python, "-W", "ignore", "-c", program], input=given, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(python)} failed:\n{done.stderr.decode()[-3000:]}")
    return done.stdout


def _differences(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    groups, others = mine["groups"], theirs["groups"]
    names = {
        (group, name) for found in (groups, others) for group in found for name in found[group]
    }
    differing = [
        f"{group}/{name}"
        for group, name in sorted(names)
        if groups.get(group, {}).get(name) != others.get(group, {}).get(name)
    ]
    return f"DIFFERENT: {', '.join(differing) or 'attributes or loo'}"


if __name__ == "__main__":
    sys.exit(main())
