"""What is committed under results/: its tables are those that its rows make.

A grid that was run here since has loose rows or audits beside its archive, and tables of that run: it is skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_local.grids.plan import read_config
from robustbench_local.report.corruption_text import corruption_files
from robustbench_local.report.render import markdown
from robustbench_local.report.results import Results
from robustbench_local.storage.archive import AUDITS, NAME, ROWS
from robustbench_local.storage.packing import pack
from robustbench_local.storage.store import Store

RESULTS = Path(__file__).parents[2] / "results"
PUBLISHED = sorted(path.parent for path in RESULTS.glob(f"*/{NAME}"))


def published(folder: Path) -> Path:
    if any(path for kind in (ROWS, AUDITS) for path in (folder / kind).glob("*.json")):
        pytest.skip(f"{folder.name} was run here since it was published")
    return folder


def made_of_its_rows(folder: Path) -> bool:
    return markdown(Results.read([folder]).tables()) == (folder / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_a_published_table_is_made_of_the_rows_beside_it(folder: Path) -> None:
    assert made_of_its_rows(published(folder))


@pytest.mark.parametrize("name", ["mnist_noise", "cifar10_noise"])
def test_published_corruption_errors_are_made_of_the_rows_beside_them(name: str) -> None:
    results = Results.read([published(RESULTS / name)])
    assert results.baseline == read_config(name, {}).baseline
    found = corruption_files(results.rows, results.robust_shares, results.baseline)["corruption.md"]
    assert found == (RESULTS / name / "corruption.md").read_text(encoding="utf-8")


def test_a_figure_that_the_rows_do_not_give_is_noticed(tmp_path: Path) -> None:
    source = Store(published(RESULTS / "mnist_pgd"))
    grid = Store(tmp_path / "grid")
    for row in source.rows():
        grid.take(row, source)
    for name, record in source.audits().items():
        grid.keep_audit(name, record)
    pack(grid.folder)
    table = (source.folder / "table.md").read_text(encoding="utf-8")
    (grid.folder / "table.md").write_text(table, encoding="utf-8")
    assert made_of_its_rows(grid.folder)
    (grid.folder / "table.md").write_text(table.replace("0.0 (0.0-", "0.1 (0.0-", 1), encoding="utf-8")
    assert not made_of_its_rows(grid.folder)


def test_there_are_published_grids() -> None:
    assert {"mnist_full", "cifar10_full", "mnist_noise", "cifar10_noise", "noise_fusion"} <= {p.name for p in PUBLISHED}
