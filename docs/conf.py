"""How Sphinx builds the site; `python docs/build.py` runs it."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "ext"))

import inventories  # noqa: E402 - beside this file

import pyro_latents  # noqa: E402

# Notebooks and pictures are shown under the folder that README and RESULTS name them by.
for source in [
    *HERE.parent.glob("tutorials/*.ipynb"),
    *HERE.parent.glob("tutorials/images/*.png"),
]:
    target = HERE / source.relative_to(HERE.parent)
    target.parent.mkdir(exist_ok=True)
    if not target.exists() or target.stat().st_mtime != source.stat().st_mtime:
        shutil.copy2(source, target)

project = "pyro_latents"
author = "The pyro_latents authors"
copyright = author
version = release = pyro_latents.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "formulas",
    "quoted",
    "stories",
    "measured",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

# Notebooks hold their outputs, which `tutorials/build.py` makes.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3

nitpicky = True
nitpick_ignore = [
    # Names that stand for types, and those of packages whose pages have no list of names.
    ("py:class", "Fabric"),
    ("py:class", "Weights"),
    ("py:class", "jsonargparse._core.ArgumentParser"),
    ("py:class", "pyro_latents.reproduce.parallel.Job"),
    ("py:class", "pyro_latents.reproduce.parallel.Outcome"),
    ("py:class", "pyro_latents.training.hardware.T"),
]
autosummary_generate = True
autosummary_mock_imports = ["pyro_latents.__main__"]  # it runs when it is imported
autodoc_member_order = "bysource"
# What a module takes from another is told where it is defined.
autodoc_default_options = {"ignore-module-all": True}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Nothing is asked of the network: the files are made of the tables in `inventories`.
intersphinx_mapping = inventories.mapping(HERE / "inventories", HERE / "_build" / "inventories")
intersphinx_timeout = 1

templates_path = ["_templates"]
html_theme = "furo"
html_title = "pyro_latents"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
# What a page says is not fetched, which browsers forbid where the site is opened as files.
html_show_search_summary = False
