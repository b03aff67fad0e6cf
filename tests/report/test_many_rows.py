"""Grids of thousands of cells: what is made of them grows with their number, and can still be read."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import Audit, Audits, Retry, RowFinding
from robustbench_local.metrics.paired import compare
from robustbench_local.report import compare_text, render
from robustbench_local.report.compare import Change
from robustbench_local.report.page import page
from robustbench_local.report.picture import ATTACKS, in_reach
from robustbench_local.report.results import Results
from robustbench_local.report.table import Table
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row

N = 8


def results_of(folder: Path, models: int, attacks: int = 1) -> Results:
    """Rows of so many models, each audited, that were never written; no two models are alike."""
    made = [
        a_row(
            [(7 * model + 3 * attack) >> i & 1 for i in range(N)],
            ids=f"0:{N}",
            attack="pgd",
            attack_settings={"steps": attack},
            defense="jpeg",
            defense_settings={"quality": model},
            flags=["near_tie:1"] if model % 5 == 0 else [],
        )
        for model in range(models)
        for attack in range(attacks)
    ]
    store = Store(folder)
    shares = {row.key: bits.astype(np.float64) for row, bits in made}
    results = Results([row for row, _ in made], {row.key: store for row, _ in made}, shares)
    finding = RowFinding(Finding("settings are recorded", Status.SUSPICIOUS, "none"), "linf:8/255")
    keys = [tuple(row.key for row, _ in made[start : start + attacks]) for start in range(0, len(made), attacks)]
    audits = Audits(Audit(own, (finding, finding), (Retry("linf:8/255", "best", 4, (0,), own),)) for own in keys)
    vars(results)["audits"] = audits  # as if they lay beside the rows
    return results


def seconds(folder: Path, models: int) -> float:
    """Of this process, for tables and the page."""
    results = results_of(folder, models)
    started = time.process_time()
    tables = results.tables()
    page(tables, results, [], "many")
    render.markdown(tables)
    render.csv_text(tables)
    return time.process_time() - started


def growth(folder: Path) -> float:
    """How much longer 900 rows take than 300: three times where cost is linear, nine where every row meets all."""
    seconds(folder, 10)  # what is loaded once
    return seconds(folder, 900) / min(seconds(folder, 300) for _ in range(2))


def test_a_report_takes_as_much_longer_as_it_has_more_rows(tmp_path: Path) -> None:
    assert (grown := growth(tmp_path)) < 5, grown


@pytest.mark.slow
def test_a_report_that_looks_at_all_audits_for_each_model_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of_them(self: Audits, keys: Iterable[str]) -> list[Audit]:
        wanted = {*keys}
        return [audit for audit in self for _ in range(6) if {*audit.rows} & wanted][::6]

    monkeypatch.setattr(Audits, "of", all_of_them)
    assert (grown := growth(tmp_path)) > 5, grown


def test_audits_are_found_by_their_rows_in_their_order() -> None:
    one, two = Audit(("a", "b"), (), ()), Audit(("c",), (), (Retry("linf:1", "best", 1, (), ("b",)),))
    audits = Audits([one, two])
    assert audits.of(["b"]) == [one, two]
    assert audits.of(["c", "a"]) == [one, two]
    assert audits.that_saw(["b"]) == [one]
    assert audits.of(["d"]) == audits.that_saw([]) == []


def wide(folder: Path, models: int, attacks: int) -> Table:
    (table,) = results_of(folder, models, attacks).tables()
    return table


def test_a_terminal_shows_what_can_be_read_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    console = Console(width=100, record=True)
    render.show([wide(tmp_path, 130, 2)], console)
    text = console.export_text()
    assert "30 models" in text and text.count("jpeg (quality=") < 450
    render.show([wide(tmp_path, 3, 45)], console)
    assert "5 attacks" in console.export_text()
    render.show([wide(tmp_path, 30, 2)], console)
    assert "Not shown" not in console.export_text()


def test_a_comparison_prints_the_worst_and_counts_the_others() -> None:
    bits = np.arange(40) % 2
    lost = Change("attack", "the worst of all", "worse", 0.5, 0.0, compare(bits, 0 * bits), 1e-6, (40, 40))
    same = Change("attack", "another", "same", 0.5, 0.5, compare(bits, bits), 1.0, (40, 40))
    gone = Change("attack", "gone", "only before", 0.5)
    console = Console(width=100, record=True)
    compare_text.show([*[same] * 300, lost, *[gone] * 300], console=console)
    text = console.export_text()
    assert "the worst of all" in text and text.count("another") == 199 and "Not shown: 101 same" in text
    assert text.count("gone") == 200 and "and 100 more" in text


def test_plots_take_the_strongest_attacks_where_they_are_many(tmp_path: Path) -> None:
    table = wide(tmp_path, 4, ATTACKS + 6)
    places, said = in_reach(table)
    means = [np.mean([line.robust[place].value for line in table.lines]) for place in range(len(table.attacks))]  # type: ignore[union-attr]
    assert len(places) == ATTACKS and str(ATTACKS + 6) in said
    assert max(means[place] for place in places) <= min(m for place, m in enumerate(means) if place not in places)
    assert in_reach(wide(tmp_path, 4, ATTACKS)) == (list(range(ATTACKS)), "")
