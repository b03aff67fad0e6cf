"""A hook of mkdocs: the page on changes is CHANGELOG.md, whose links are seen from docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = "changelog.md"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """What the page says; any other page is left as it is."""
    if page.file.src_uri != PAGE:
        return markdown
    return Path("CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
