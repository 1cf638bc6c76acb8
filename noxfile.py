"""Sessions for nox: the tests on every Python here, the linter, the types, the site, old versions.

``nox`` runs all but ``oldest`` (the tests with the lowest versions that ``setup.cfg`` has) and
``audit``; ``nox -s tests-3.13 -- tests/checks`` runs some of the tests on one Python.
"""

import re
from configparser import ConfigParser

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.reuse_venv = "yes"
# Nobody has all of them: a Python that is missing is skipped, and said to be.
nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with the newest packages that this Python gets."""
    session.install("--upgrade", "-e", ".[test]")
    _pytest(session)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the tests with the lowest version of everything that is asked for."""
    session.install("-e", ".[test]", *lowest_versions())
    # Old packages are warned by newer ones beneath them: that is no fault of ours.
    _pytest(session, "-W", "default")


@nox.session
def lint(session: nox.Session) -> None:
    """Look for faults of style."""
    session.install("ruff>=0.17")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    session.install("-e", ".[test]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site; with ``-- linkcheck`` also ask other sites for the pages it links to."""
    session.install("-e", ".[docs]")
    session.run("python", "docs/build.py")
    if "linkcheck" in session.posargs:
        session.run("python", "-m", "sphinx", "-b", "linkcheck", "docs", "docs/_build/linkcheck")


@nox.session
def audit(session: nox.Session) -> None:
    """Look for releases with known vulnerabilities among what is installed; before a release."""
    session.install(".", "pip-audit>=2.7")
    # Strict: a package that cannot be looked up is else passed over, with "none found" and a zero
    # exit code. This one may not be on PyPI.
    session.run("python", "-m", "pip", "uninstall", "--yes", "--quiet", "pyro-latents")
    session.run("pip-audit", "--strict")


def lowest_versions() -> list[str]:
    """Return ``name==version`` for each lower bound of the package and of its tests."""
    config = ConfigParser()
    config.read("setup.cfg")
    asked = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    return [f"{name}=={low}" for name, low in re.findall(r"^([\w-]+) *>=([\w.]+)", asked, re.M)]


def _pytest(session: nox.Session, *options: str) -> None:
    # One thread: on a busy machine more of them wait for each other.
    session.run("python", "-m", "pytest", *options, *session.posargs, env={"OMP_NUM_THREADS": "1"})
