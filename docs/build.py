"""Build the site, and see that nothing in it leads nowhere.

    pip install -e ".[docs]" && python docs/build.py [FOLDER]

Sphinx takes every warning for an error. Then each link of each page is followed, to the page and
to the place in it; those to other sites are left to ``python -m sphinx -b linkcheck docs FOLDER``,
which needs a network.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).parent
STRICT = ("--fail-on-warning", "--keep-going", "--nitpicky", "--quiet")


class Page(HTMLParser):
    """The places of a page that can be named, and where its links lead.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names, and what it links to or shows."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def dead_links(site: Path) -> Iterator[str]:
    """Return what is wrong with each link within a site that leads nowhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if not target.exists():
                yield f"{path.relative_to(site.resolve())}: there is no {link}"
            elif place and target in pages and place not in pages[target].places:
                yield f"{path.relative_to(site.resolve())}: there is no {place} in {parts.path}"


def main() -> None:
    """Build and check."""
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "_build" / "html"
    # Pages of modules that are gone would stay.
    shutil.rmtree(HERE / "reference" / "generated", ignore_errors=True)
    trees = ("-d", str(site.with_name(f"{site.name}-trees")))
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *STRICT, *trees, HERE, site], check=False
    )
    if built.returncode:
        raise SystemExit("the site has warnings, which are above.")
    dead = sorted(set(dead_links(site)))
    if dead:
        raise SystemExit("\n".join([*dead, f"{len(dead)} links of the site lead nowhere."]))
    print(f"{site}/index.html: {len(list(site.rglob('*.html')))} pages, no warning, no dead link.")


if __name__ == "__main__":
    main()
