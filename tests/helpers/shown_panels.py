"""The pictures that a page of results shows, whatever way it holds them."""

from __future__ import annotations

from robustbench_local.report.detail import detail
from robustbench_local.report.panel_view import PanelView
from robustbench_local.report.results import Results


def shown_panels(results: Results) -> list[PanelView]:
    """Of each line of each table that has some."""
    every = (detail(line, table, results).panel for table in results.tables() for line in table.lines)
    return [panel for panel in every if panel is not None]
