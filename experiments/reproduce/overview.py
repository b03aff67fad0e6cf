"""All reproductions of a folder in one table: how many published figures were met, and which lies farthest off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.reproduce.page import REDUCED
from experiments.reproduce.published import Reproduction, reproductions
from robustbench_local.report.markdown import markdown_table

HEADS = ("reproduction", "published figures", "agree", "lower here", "higher here", "farthest off, points")


def overview(folder: Path) -> str:
    """Markdown of what published.json in the folders of reproductions say; the others stand with their command."""
    lines = [
        "# Published figures, measured again",
        "",
        markdown_table(HEADS, [_line(item, folder / item.name) for item in reproductions().values()]),
        "",
        "A figure agrees where the 95 % interval of the difference, for the luck of sampling images, holds zero. Most",
        "networks are small ones, trained here: each page says in which setting its figures were measured.",
        REDUCED,
    ]
    return "\n".join(lines) + "\n"


def _line(item: Reproduction, folder: Path) -> list[str]:
    if not (folder / "published.json").is_file():
        return [item.title, f"not run yet: `python -m experiments.reproduce {item.name}`", "", "", "", ""]
    figures = json.loads((folder / "published.json").read_text(encoding="utf-8"))
    compared = [each for each in figures if each["difference"] is not None]
    lower, higher = (sum(_beyond(each, sign) for each in compared) for sign in (-1, 1))
    farthest = max(compared, key=lambda each: abs(each["difference"]), default=None)
    published = sum(each["figure"]["value"] is not None for each in figures)
    return [
        f"[{item.title}]({item.name}/published.md)",
        f"{published}" if published == len(compared) else f"{published}, {published - len(compared)} not run",
        f"{len(compared) - lower - higher}",
        f"{lower}",
        f"{higher}",
        f"{farthest['difference']:+.1f}: {farthest['figure']['what']}" if farthest else "–",
    ]


def _beyond(figure: dict[str, Any], sign: int) -> bool:
    """Whether the interval of the difference lies on that side of zero."""
    return all(sign * end > 0 for end in figure["interval"])
