"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool] = ()) -> str:
    """A line of headings, a rule, and a line per row. numeric: which columns hold figures, and are set to the right.

    Texts are Markdown: who shows a stranger's passes it through shown(text, "markdown") first.
    """
    rule = ["---:" if each else "---" for each in numeric or [False] * len(heads)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
