"""Text of strangers as it is shown: names, paths and errors hold anything, and every target obeys something else."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, assert_never

Target = Literal["terminal", "markdown", "html", "csv", "tex"]

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, direction marks, surrogates, line separators
_MARKDOWN = re.compile(  # an underscore within a word is none of emphasis; addresses become links by themselves
    r"[\\`*\[\]<>|&$~]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=www)\.|^[#+-](?=\s|#|$)", re.IGNORECASE
)
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # spreadsheets take wide ones as well
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})
_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "–": "--",
    }
    | {char: f"\\{char}" for char in "{}$&#_%"}
)


def visible(text: object) -> str:
    """One line in which every character can be seen: what would be invisible, or turn the text, stands as \\u202e."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSEEN else char for char in plain
    )


def shown(text: object, target: Target) -> str:
    """One line of text that the target shows as it is, and does not obey; ordinary names are left alone.

    terminal    no control character moves the cursor, changes colours or makes links; line breaks become spaces. Where
                rich reads markup, hand it over as rich.text.Text
    markdown    nothing becomes a column, emphasis, a link, a heading or HTML
    html        as the content of an element, or of a quoted attribute
    csv         a text that begins like a formula has an apostrophe before it, which keeps it a text
    tex         a command in a name stays a word, and the first of a row no argument of the row before it
    """
    match target:
        case "terminal":
            return visible(re.sub(r"\s*[\r\n]\s*", " ", str(text).strip()))
        case "markdown":
            return _MARKDOWN.sub(r"\\\g<0>", visible(text))
        case "html":
            return visible(text).translate(_HTML)
        case "csv":
            plain = visible(text)
            return f"'{plain}" if plain.lstrip().startswith(_FORMULA) else plain
        case "tex":
            plain = visible(text).translate(_TEX)
            return f"{{{plain[0]}}}{plain[1:]}" if plain[:1] in ("[", "*") else plain
        case _:
            assert_never(target)
