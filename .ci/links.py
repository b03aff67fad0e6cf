"""Links between the Markdown pages outside docs/: each leads to a file, and its anchor to a heading of that file.

Those inside docs/ are checked by mkdocs build --strict. Links to other hosts are not followed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGES = ("*.md", "results/**/*.md")
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in addresses: small letters, no signs, dashes for spaces."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text)}


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for path, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            found.append(f"{page}: {path}{anchor}")
    return found


if __name__ == "__main__":
    pages = sorted({page for pattern in PAGES for page in Path().glob(pattern)})
    nowhere = [link for page in pages for link in broken(page)]
    print("\n".join(nowhere) or f"{len(pages)} pages: all links lead somewhere")
    sys.exit(bool(nowhere))
