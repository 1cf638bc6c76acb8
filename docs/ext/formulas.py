"""Formulas as pictures that are drawn when the site is built: no script, no font, no network."""

from html import escape
from typing import Any

import ziamath
from docutils import nodes
from sphinx.util import logging

# In units of the text around, which is 16 pixels high.
SIZE = 17
# Glyphs are drawn where they stand: names of shared ones would meet those of other formulas.
ziamath.config.svg2 = False


def picture(latex: str, *, inline: bool) -> str:
    """Return a formula as an SVG element, on the line of the text if it is ``inline``."""
    found = ziamath.Latex(latex, size=SIZE, color="currentColor", inline=inline)
    label = escape(latex, quote=True)
    style = f' style="vertical-align:{found.getyofst():.2f}px"' if inline else ""
    return found.svg().replace("<svg ", f'<svg role="img" aria-label="{label}"{style} ', 1)


def draw(self: Any, node: nodes.Element, *, inline: bool) -> str:
    """Return the picture of a node, or its source with a warning where it cannot be read."""
    try:
        return picture(node.astext(), inline=inline)
    except Exception as error:  # whatever the reader of formulas says
        logging.getLogger(__name__).warning(
            "a formula cannot be drawn (%s): %s", error, node.astext(), location=node
        )
        return f"<code>{escape(node.astext())}</code>"


def inline(self: Any, node: nodes.Element) -> None:
    """Draw a formula within a sentence."""
    self.body.append(f'<span class="formula">{draw(self, node, inline=True)}</span>')
    raise nodes.SkipNode


def display(self: Any, node: nodes.Element) -> None:
    """Draw a formula on a line of its own."""
    self.body.append(f'<div class="formula">{draw(self, node, inline=False)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("pictures", (inline, None), (display, None))
    app.config.html_math_renderer = "pictures"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
