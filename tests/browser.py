"""A browser without a screen, for tests of pages."""

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="neither chromium nor google-chrome is on the path"
)
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
]
# Of the browser's clock, which runs ahead while nothing is to be done.
MILLISECONDS = 20_000
# Of a telephone.
WIDTH = 390


def opened(page, folder, *options):
    """Open a page; return its elements as text, and what its console says."""
    command = [BROWSER, *OPTIONS, *options, f"--user-data-dir={folder / 'browser'}"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def told(page, script, folder):
    """Open a page in a frame as narrow as a telephone, with a script of ours at its end.

    Args:
        page: HTML.
        script: The script: it calls ``tell`` with what there is to tell.
        folder: For files of this test.

    Returns:
        What it told, and what the console says.
    """
    tell = "const tell = (what) => parent.postMessage(JSON.stringify(what), '*');"
    ours = f"<script>{{ {tell}\n{script} }}</script></body>"
    (folder / "page.html").write_text(page.replace("</body>", ours))
    frame = folder / "frame.html"
    frame.write_text(
        "<script>addEventListener('message', (event) => document.body.dataset.told = event.data)"
        f"</script><body><iframe src=page.html width={WIDTH} height=800></iframe></body>"
    )
    dumped, console = opened(frame, folder, f"--virtual-time-budget={MILLISECONDS}")
    found = re.search(r'data-told="([^"]*)"', dumped)
    return json.loads(html.unescape(found[1])) if found else None, console
