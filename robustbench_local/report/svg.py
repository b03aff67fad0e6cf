"""A figure as SVG, a third as long as matplotlib writes it: a page holds a dozen, a repository many pages."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from robustbench_local.report.shades import NIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#1e2126", "#5a6069", "#dedad2"
_DARK = {INK: "#e9e7e2", SOFT: "#a3a9b1", LINE: "#343a40", **NIGHT}
_FONT = "text{font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif}"
_PREAMBLE = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")  # text between tags is a user's: none of it is touched
_UNUSED = re.compile(r' transform="rotate\(-0 [^"]*"|(?<=<g) id="[^"]*"| font-family: [^;"]*;')
_NUMBERS = re.compile(r' (?:d|x|y|transform)="[^"]*"')
_LINES = re.compile(r"(?:[ML] \S+ \S+ ){2,}")
_IDS = re.compile(r"(id=['\"]|href=['\"]#|url\(#)([^'\")]+)")


def svg(figure: Figure) -> str:
    """The figure as SVG text on no background; ink turns light where the reader's system is dark.

    Coordinates are rounded to a tenth of a point, and a style that many shapes share is written once, as a class.
    Groups without a meaning are opened up, identifiers are short.
    """
    file = io.StringIO()
    _lay_out(figure)
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r">\s+<", "><", _PREAMBLE.sub("", file.getvalue())).strip()
    styles: dict[str, str] = {}
    opened: list[bool] = []
    ids: dict[str, str] = {}
    text = _TAG.sub(lambda tag: _lean(_grouped(tag[0], opened), styles, ids), text)
    light = "".join(f".{name}{{{style}}}" for style, name in styles.items())
    dark = "".join(f".{name}{{{_night(style)}}}" for style, name in styles.items() if _night(style) != style)
    rules = f"<style>{_FONT}{light}@media (prefers-color-scheme:dark){{{dark}}}</style>"
    return text.replace(">", f">{rules}", 1)


def _lay_out(figure: Figure) -> None:
    """Find each part its place. savefig would draw all of it once more for that."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    figure.set_dpi(FigureCanvasSVG.fixed_dpi)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)


def _grouped(tag: str, opened: list[bool]) -> str:
    """The tag, or nothing where it opens or closes a group that says nothing; opened: whether outer ones were kept."""
    tag = _UNUSED.sub("", tag)
    if tag.startswith(("<g>", "<g ")):
        opened.append(tag != "<g>")
        return tag if opened[-1] else ""
    return "" if tag == "</g>" and not opened.pop() else tag


def _lean(tag: str, styles: dict[str, str], ids: dict[str, str]) -> str:
    tag = _NUMBERS.sub(lambda found: _rounded(found[0]), tag).replace("xlink:href", "href")
    tag = _IDS.sub(lambda found: found[1] + ids.setdefault(found[2], f"i{len(ids)}"), tag)
    tag = re.sub(r' style="([^"]*)"', lambda found: f' class="{_named(found[1], styles)}"', tag)
    return tag.replace('"', "'")  # which JSON takes as it is


def _named(style: str, styles: dict[str, str]) -> str:
    return styles.setdefault(re.sub(r"(?<=[:;]) +", "", style), f"s{len(styles)}")


def _night(style: str) -> str:
    return re.sub("|".join(_DARK), lambda found: _DARK[found[0]], style)


def _rounded(attribute: str) -> str:
    short = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), attribute)
    return _LINES.sub(lambda found: _straight(found[0]), re.sub(r"\s+", " ", short))


def _straight(lines: str) -> str:
    """M 1 2 L 3 2 L 3 4 as M 1 2 H 3 V 4; steps that end where they began are left out."""
    written, last = "", ("", "")
    for command, x, y in re.findall(r"([ML]) (\S+) (\S+) ", lines):
        if command == "M" or (x != last[0] and y != last[1]):
            written += f"{command} {x} {y} "
        elif x != last[0]:
            written += f"H {x} "
        elif y != last[1]:
            written += f"V {y} "
        last = x, y
    return written
