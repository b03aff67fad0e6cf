"""Rows -> all that is made of them, beside them: tables, leaderboard page, plots, model_info."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from robustbench_local.report import export, render
from robustbench_local.report.corruption import corruption_tables
from robustbench_local.report.corruption_text import corruption_files
from robustbench_local.report.latex import latex
from robustbench_local.report.page import page
from robustbench_local.report.plots import plots
from robustbench_local.report.plots_corruption import corruption_plots
from robustbench_local.report.results import Results
from robustbench_local.report.table import Table
from robustbench_local.storage.files import whole_file

GALLERY = "gallery.html"  # which `gallery` writes


def write_report(results: Results, folder: Path, title: str | None = None) -> list[Table]:
    """Write table.md, .csv, .tex and .json, index.html, plots/ and model_info/ into a folder, corruption.md and .csv
    where rows hold corruptions; return the tables.

    The same rows give the same files, byte for byte. StoreError as in whole_file, or where arrays are damaged.
    """
    tables, corruptions = results.tables(), corruption_tables(results.rows, results.baseline, results.corrupted_shares)
    drawn = [corruption_plots(table) for table in corruptions]
    pictures = plots(tables, results)
    files = {
        "table.md": render.markdown(tables),
        "table.csv": render.csv_text(tables),
        "table.tex": latex(tables),
        "table.json": export.json_text(tables),
        "index.html": page(
            tables,
            results,
            pictures,
            title or folder.resolve().name,
            list(zip(corruptions, drawn, strict=True)),
            gallery=(folder / GALLERY).is_file(),
        ),
        **{f"plots/{picture.name}.svg": picture.svg for picture in chain(pictures, *drawn)},
        **dict(export.model_infos(tables, results.model_infos)),
    }
    files |= corruption_files(results.rows, results.robust_shares, results.baseline)
    for name, text in files.items():
        with whole_file(folder / name) as file:
            file.write(text.encode())
    return tables


def print_tables(results: Results) -> None:
    """Show the tables in the terminal."""
    render.show(results.tables())
