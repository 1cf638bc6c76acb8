"""Every block of code on the README and on the pages of the site runs, in the order of its page.

Commands and functions run as they are written, but with small numbers (`SHORT`), so that a page
takes seconds.
"""

import functools
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from pyro_latents.checks import classifier
from pyro_latents.cli import main
from pyro_latents.data.digits import digits
from pyro_latents.evaluation import reference
from pyro_latents.runs import references

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/index.md",
    "docs/how_do_i.md",
    "docs/is_my_guide_any_good.md",
    "docs/predictive_checks.md",
    "docs/command_line.md",
    "docs/from_python.md",
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Languages of blocks that are shown and not run.
SHOWN = {"text"}
PROGRAM = "pyro-latents"
TRAINING = "--limit-train 100 --validation 20 --accelerator cpu --devices 1 --nodes 1"
# The options of a command, in the place of its own.
SHORT = {
    "train": TRAINING,
    "evaluate": "--particles 5 --likelihood-points 5 --limit-test 10 --annealed-points 2 "
    "--chains 2 --temperatures 4",
    "reference": "--images 3 --chains 2 --draws 8 --temperatures 4",
    "compare": "--particles 5 --points 5",
    "calibrate": "--points 20 --draws 10",
    "check": "--images 20 --draws 3",
}
# The arguments of a function, likewise.
SHORT_CALLS = {
    "pyro_latents.runs.recipe:Recipe.train": {"epochs": None, "steps": 2, "accelerator": "cpu"},
    "pyro_latents.runs.measured:Measured.evaluate": {"particles": 5, "likelihood_points": 5},
    "pyro_latents.runs.face:Face.check": {"images": 20, "draws": 3},
    "pyro_latents.evaluation:annealed_evidence": {"num_chains": 2, "num_temperatures": 4},
    "pyro_latents.evaluation:evidence_interval": {"num_chains": 2, "num_temperatures": 4},
    "pyro_latents.evaluation:trusted_posterior": {
        "draws": 25,
        "num_chains": 2,
        "num_temperatures": 4,
    },
    "pyro_latents.evaluation.evidence:log_evidence": {"num_particles": 25},
    "pyro_latents.evaluation.reference:reference_posterior": {
        "num_chains": 2,
        "num_draws": 8,
        "num_temperatures": 4,
    },
    "pyro.infer:MCMC": {"num_samples": 3, "warmup_steps": 3},
}
# What sets up, which `.ci/run` does.
SET_UP = re.compile(
    r"(python3 -m venv|\.venv/bin/(pip install|python -m pytest)|pip install|source|jupyter)\b"
)


def blocks(path):
    """The language and text of each block of code of a page, and the line that it begins on."""
    text = path.read_text()
    for found in BLOCK.finditer(text):
        yield found[1], found[2], text[: found.start()].count("\n") + 2


def commands(text):
    """The words of each command of a block for a shell."""
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words:
                yield words


def shortened(words):
    """A command with small numbers: options that are given twice are replaced."""
    name, short = words[0], SHORT.get(words[0], "")
    if name == "train":
        # A training that goes on has more steps than before.
        short += f" --steps {4 if '--resume' in words else 2}"
        short += "" if "--model-from" in words else " --networks dense"
        words = [w for i, w in enumerate(words) if "--epochs" not in (w, words[i - 1])]
    return [*words, *shlex.split(short)]


def run_command(words):
    """Run a command of the program; one that starts it on several machines, on this one."""
    program = {PROGRAM, f".venv/bin/{PROGRAM}", "pyro_latents"} & set(words)
    if not program:
        assert SET_UP.match(" ".join(words)), f"{words} is no command that this test knows"
        return
    words = words[words.index(program.pop()) + 1 :]
    assert main(shortened(words)) == 0, f"{words} fails"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, with pictures."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(digits().test.x[:30]):
        Image.fromarray((255 * image[0]).byte().numpy()).save(folder / f"{i}.png")
    monkeypatch.setattr(classifier, "STEPS", 5)
    # Imported by now, so that it keeps the whole function when the test is over.
    assert references.reference_posterior is reference.reference_posterior
    # So few draws do not agree.
    monkeypatch.setattr(reference, "SMALLEST_ESS", 0)
    monkeypatch.setattr(reference, "LARGEST_R_HAT", float("inf"))
    for path, numbers in SHORT_CALLS.items():
        shorten(path, numbers, monkeypatch)
    return tmp_path


def shorten(path, numbers, monkeypatch):
    module, _, names = path.partition(":")
    *owners, name = names.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    function = getattr(owner, name)

    @functools.wraps(function)
    def short(*args, **kwargs):
        return function(*args, **{**kwargs, **numbers})

    monkeypatch.setattr(owner, name, short)


@pytest.mark.parametrize("page", PAGES)
def test_it_runs(page, place, monkeypatch):
    # What a page defines is found by its import path, as in a file of a user.
    monkeypatch.setitem(sys.modules, "page", ModuleType("page"))
    known = vars(sys.modules["page"])
    for language, text, line in blocks(ROOT / page):
        if language == "bash":
            for words in commands(text):
                run_command(words)
        elif language == "python":
            code = compile("\n" * (line - 1) + text, page, "exec")
            exec(code, known)
        else:
            assert language in SHOWN, f"{page}:{line}: a block of {language}"
