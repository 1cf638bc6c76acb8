import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyro_latents.runs import registry
from pyro_latents.stories.vae import VAEStory

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyro_latents"

# Each layer may import those before it, and none after.
LAYERS = [
    {"errors", "fields", "files", "memory", "programs", "progress", "text"},
    {"data", "transport", "warps"},
    {"nets"},
    {"distributions"},
    {"models"},
    {"guides"},
    {"losses"},
    {"training"},
    {"evaluation"},
    {"checks"},
    {"plots"},
    {"live"},
    {"stories"},
    {"runs"},
    {"zoo"},
    {"reproduce"},
    {"commands"},
    {"cli"},
]
# Stricter than the order of the layers.
NEVER = {
    "models": {"data"},
    "guides": {"data"},
    "losses": {"models", "guides"},
    "training": {"models", "guides"},
    "evaluation": {"models", "guides", "training"},
}


def modules():
    """The path of every module of the package, by its name."""
    found = {}
    for folder in (PACKAGE, ROOT / "models", ROOT / "guides"):
        for path in sorted(folder.glob("**/*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if parts[0] == "pyro_latents" else ("pyro_latents", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(tree):
    """The modules of the package that code names, at its top or anywhere within.

    Those that a string names count as well: it is how `import_module` is told.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & MODULES.keys()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & MODULES.keys()
    return found - {"pyro_latents"}


IMPORTS = {name: imported(ast.parse(path.read_text())) for name, path in MODULES.items()}


def layer_of(module):
    return module.split(".")[1]


def test_imports_run_one_way():
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for module in IMPORTS.keys() - {"pyro_latents", "pyro_latents.__main__"}:
        mine = layer_of(module)
        assert mine in rank, f"{module} is in no layer"
        for other in IMPORTS[module]:
            theirs = layer_of(other)
            if rank.get(theirs, -1) > rank[mine] or theirs in NEVER.get(mine, ()):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def circles(graph):
    """The groups of modules that import each other, by whatever way round."""
    reached = {}
    for module in graph:
        reached[module], ahead = set(), [module]
        while ahead:
            new = graph[ahead.pop()] - reached[module]
            reached[module] |= new
            ahead += new
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
    }
    return sorted(group for group in groups if group)


def test_no_modules_import_each_other():
    assert circles(IMPORTS) == []


def test_a_circle_is_found_by_whatever_way_round():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}
    assert circles(graph) == [("a", "b", "c")]


def test_an_import_is_seen_wherever_it_stands():
    lazy = "def f():\n    from pyro_latents import zoo"
    assert imported(ast.parse(lazy)) == {"pyro_latents.zoo"}
    hidden = "if TYPE_CHECKING:\n    from pyro_latents.data.batches import Batches"
    assert imported(ast.parse(hidden)) == {"pyro_latents.data.batches"}
    told = "import_module('pyro_latents.programs')"
    assert imported(ast.parse(told)) == {"pyro_latents.programs"}


def test_nothing_of_the_package_is_imported_for_type_checkers_alone():
    hidden = [
        f"{name} imports {', '.join(sorted(imported(node)))}"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if imported(node)
    ]
    assert hidden == []


def test_every_package_is_declared():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    declared = set(config["options"]["packages"].split())
    found = {"pyro_latents"}
    for name in ("pyro_latents", "models", "guides"):
        for path in (ROOT / name).glob("**/__init__.py"):
            folder = path.parent.relative_to(ROOT)
            parts = folder.parts if name == "pyro_latents" else ("pyro_latents", *folder.parts)
            found.add(".".join(parts))
    assert declared == found


def test_every_file_that_is_no_module_is_packaged():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    declared = {
        path
        for package, patterns in config["options.package_data"].items()
        for pattern in patterns.replace(",", " ").split()
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    found = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert found == declared


def printed_by(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_importing_the_package_is_light():
    code = "import sys, pyro_latents; print('torch' in sys.modules or 'pyro' in sys.modules)"
    assert printed_by(code).strip() == "False"


def test_listing_recipes_imports_no_data_libraries():
    code = (
        "import sys; from pyro_latents.cli import main; main(['list']);"
        "print([m for m in ('torchvision', 'sklearn', 'lightning') if m in sys.modules])"
    )
    assert printed_by(code).splitlines()[-1] == "[]"


def test_a_recipe_is_built_without_the_compiler_of_torch():
    code = (
        "import sys; from pyro_latents import zoo; zoo.recipe('vae-digits').model;"
        "print('torch._dynamo' in sys.modules)"
    )
    assert printed_by(code).strip() == "False"


def test_another_package_adds_a_recipe_by_an_entry_point(monkeypatch):
    class Point:
        name = "vae-elsewhere"

        def load(self):
            return VAEStory(data="digits", z_dim=3)

    registry.installed.cache_clear()
    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    try:
        assert registry.story_of("vae-elsewhere").z_dim == 3
    finally:
        registry.installed.cache_clear()


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'vae-mnist' exists already"):
        registry.register("vae-mnist", VAEStory(data="mnist"))


@pytest.mark.parametrize("story", ["equivae", "pose_tvae", "triplet_tvae", "vaells"])
def test_the_files_that_a_story_is_made_of_are_there_and_few(story):
    told = ast.get_docstring(ast.parse((PACKAGE / "stories" / story / "__init__.py").read_text()))
    files = [path for path in re.findall(r"`([\w/]+\.py)`", told)]
    assert all((PACKAGE / path).is_file() for path in files)
    assert {path.name for path in (PACKAGE / "stories" / story).glob("[!_]*.py")} <= {
        Path(path).name for path in files
    }
    # What is measured of a story is told after the list of what it is.
    assert len(re.findall(r"`[\w/]+\.py`", told.partition("\nWhat is measured")[0])) <= 15
