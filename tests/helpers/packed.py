"""What a page keeps packed: its models' panels, its plots, the lines that do not stand on it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any


def unpacked(page: Path) -> dict[str, Any]:
    """{opened: {id: HTML}, rest: [[line]], pictures: {name: SVG}} of a page."""
    (text,) = re.findall(r'<script type="text/plain" id="packed">([^<]*)</script>', page.read_text(encoding="utf-8"))
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return found
