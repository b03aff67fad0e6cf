"""Headless Chromium on a page from disk: what it shows, what it asks for, what it complains of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parents[2] / ".venv" / "axe.min.js"
EVIL = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>|\n\u202e'\"&quot;${1}{{7*7}}"
)


def lacking(what: str) -> NoReturn:
    """A skip, or in CI, where everything must be there, a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not there: make browser")
    raise AssertionError


def launched() -> Iterator[Any]:
    """Chromium, for a fixture to yield from; closed in the end."""
    if CHROMIUM is None:
        lacking("Chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page as somebody sees it, and all that it asked for or complained of."""

    def __init__(self, browser: Any, path: Path, fragment: str = "", **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.trouble: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.goto(path.as_uri() + fragment)

    def violations(self) -> list[tuple[str, list[str]]]:
        """What axe-core finds against accessibility: rules, and some of the elements; opened with bypass_csp."""
        if not AXE.exists():
            lacking("axe-core")
        if not self.page.evaluate("'axe' in window"):
            self.page.add_script_tag(path=str(AXE))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found["violations"]]
