"""How docstrings and signatures of the package are read: backticks, references, ranges, links."""

import inspect
import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from docutils import nodes
from sphinx.addnodes import pending_xref

import pyro_latents

PACKAGE = "pyro_latents"
ENDED = re.compile(r"(https?://\S+|\d\)|\(\w+, \d{4}\)|\d|\))$")
ROOT = Path(__file__).resolve().parents[2]
# Files of the repository that are pages of the site too, as they link to each other.
PAGES = {
    "README": "index",
    "RESULTS": "results",
    "CONTRIBUTING": "contributing",
    "CHANGELOG": "changelog",
}


def resolve(app: Any, env: Any, node: pending_xref, content: nodes.Element) -> Any:
    """Return a link to what a package takes from its modules, or what is the name of nothing.

    What begins with this package's name must be there: if not, it is a warning.
    """
    name = node["reftarget"]
    if not name.startswith(f"{PACKAGE}."):
        return content if node.get("reftype") == "obj" else None
    package, _, attribute = name.rpartition(".")
    defined = getattr(sys.modules.get(package), attribute, None)
    if getattr(defined, "__module__", package) == package:
        return None
    where = f"{defined.__module__}.{defined.__qualname__}"
    domain, page = env.get_domain("py"), node["refdoc"]
    return domain.resolve_xref(env, page, app.builder, "obj", where, node, content)


def page_of(target: str) -> str | None:
    """Return the page that a file of the repository is, if it is one."""
    path = Path(target).with_suffix("")
    if not path.is_relative_to(ROOT):
        return PAGES.get(str(path))
    # As a page in a folder of the site links to it; notebooks are copied into the site.
    name = str(path.relative_to(ROOT))
    return PAGES.get(name, name if name.startswith("tutorials/") else None)


def link_pages(app: Any, document: nodes.document) -> None:
    """Let links to files of the repository lead to their pages."""
    for node in document.findall(pending_xref):
        if page := page_of(node["reftarget"]):
            node.update_all_atts(
                {
                    "refdomain": "std",
                    "reftype": "doc",
                    "reftarget": f"/{page}",
                    "refexplicit": True,
                },
                replace=True,
            )


def list_references(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Make each entry of the references of a docstring a line of a list."""
    if "References:" not in lines:
        return
    start = lines.index("References:") + 1
    before = ""
    for i in range(start, len(lines)):
        line = lines[i].strip()
        if not line or not lines[i].startswith(" "):
            break
        # An entry ends with its address, its year or its pages.
        is_new = not before or (ENDED.search(before) and line[0].isupper())
        lines[i] = f"    {'- ' if is_new else '  '}{line}"
        before = line


def leave_out_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> Any:
    """Leave out the fields of named tuples, which the docstrings of their classes tell of."""
    is_field = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if is_field else None


def leave_out_ranges(app: Any) -> None:
    """Show the `Positive[int]` of a field as the number that it is: its range is told in words."""
    for found in pkgutil.walk_packages(pyro_latents.__path__, f"{PACKAGE}."):
        if found.name.endswith("__main__"):
            continue
        for _, kind in inspect.getmembers(import_module(found.name), inspect.isclass):
            if kind.__module__.startswith(PACKAGE):
                # The class, and what makes an object of it, have annotations each.
                _replace(kind)
                _replace(kind.__init__)


def _replace(holder: Any) -> None:
    told = getattr(holder, "__dict__", {}).get("__annotations__")
    told = getattr(holder, "__annotations__", {}) if told is None else told
    try:
        full, plain = get_type_hints(holder, include_extras=True), get_type_hints(holder)
    except (NameError, TypeError):
        return
    if "Annotated" in str(full):
        holder.__annotations__ = {name: plain[name] for name in told if name in plain}


def setup(app: Any) -> dict[str, bool]:
    """Connect all of it."""
    app.connect("missing-reference", resolve, priority=900)
    app.connect("builder-inited", leave_out_ranges)
    app.connect("doctree-read", link_pages)
    app.connect("autodoc-skip-member", leave_out_fields)
    # Before napoleon reads the sections.
    app.connect("autodoc-process-docstring", list_references, priority=400)
    app.config.default_role = "py:obj"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
