import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from pyro_latents.recipes import registry
from pyro_latents.recipes.vae import VAESettings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyro_latents"

# Each layer may import those before it, and none after.
LAYERS = [
    {"errors", "files", "memory", "parameters", "svi", "traces"},
    {"data", "latent_transformations", "transport", "warps"},
    {"nets"},
    {"distributions"},
    {"models"},
    {"guides"},
    {"losses"},
    {"training"},
    {"evaluation"},
    {"checks"},
    {"plots"},
    {"recipes"},
    {"zoo"},
    {"reproduce"},
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
    yield from sorted(PACKAGE.glob("**/*.py"))
    for folder in ("models", "guides"):
        yield from sorted((ROOT / folder).glob("**/*.py"))


def layer_of(path):
    parts = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT).with_suffix("")
    return parts.parts[0]


def imported_layers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "pyro_latents":
                names = [f"pyro_latents.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("pyro_latents."):
                yield name.split(".")[1]


def test_imports_run_one_way():
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for path in modules():
        mine = layer_of(path)
        if mine not in rank:
            assert mine in {"__init__", "__main__"}, f"{path} is in no layer"
            continue
        for theirs in set(imported_layers(path)):
            if rank.get(theirs, -1) > rank[mine] or theirs in NEVER.get(mine, ()):
                wrong.append(f"{path.relative_to(ROOT)} imports {theirs}")
    assert not wrong


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


def test_another_package_adds_a_recipe_by_an_entry_point(monkeypatch):
    class Point:
        name = "vae-elsewhere"

        def load(self):
            return VAESettings(data="digits", z_dim=3)

    registry._installed.cache_clear()
    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    try:
        assert registry.settings_of("vae-elsewhere").z_dim == 3
    finally:
        registry._installed.cache_clear()


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'vae-mnist' exists already"):
        registry.register("vae-mnist", VAESettings(data="mnist"))
