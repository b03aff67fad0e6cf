"""Tables as LaTeX, for a paper: \\usepackage{booktabs}."""

from __future__ import annotations

from collections.abc import Iterable

from robustbench_local.core.escaping import shown
from robustbench_local.report.render import last, legend, one_line, rates
from robustbench_local.report.table import Table


def latex(tables: Iterable[Table]) -> str:
    """A table environment each; cells read "45.2 (42.1-48.3)", and the best worst case is in bold."""
    parts = ["% Needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} for quotation marks in names."]
    for table in tables:
        heads = ["model", "defense", "clean", *map(str, table.attacks), *last(table)]
        body = [[line.model, str(line.defense), *map(one_line, rates(line, table))] for line in table.lines]
        cells = [[shown(cell, "tex") for cell in row] for row in [heads, *body]]
        if table.lines and table.lines[0].worst[-1]:
            place = 2 + len(table.attacks) + len(table.worst)
            cells[1][place] = rf"\textbf{{{cells[1][place]}}}"
        first, *rest = [f"  {' & '.join(row)} \\\\" for row in cells]
        caption = f"{table.title}. {' '.join([*legend(table), *table.notes])}"
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{shown(caption, 'tex')}}}",
                    rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}",
                    r"  \toprule",
                    first,
                    r"  \midrule",
                    *rest,
                    r"  \bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"
