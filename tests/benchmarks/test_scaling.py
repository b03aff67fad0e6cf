"""How cost grows: exponents, the table of what was measured, and the rows that are made up for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks._many_rows import Shape, make, part
from benchmarks.scaling import AXES, exponent, point, table
from robustbench_local.report.compare import compare
from robustbench_local.report.results import Results


def test_an_exponent_is_that_of_what_comes_on_top_of_fixed_costs() -> None:
    sizes = [10, 20, 40, 80]
    assert exponent(sizes, [500 + 3 * size for size in sizes]) == pytest.approx(1)
    assert exponent(sizes, [500 + size**2 for size in sizes]) > 1.5  # type: ignore[operator]
    assert exponent(sizes, [5, 5, 5, 5]) is None and exponent(sizes[:3], [1, 2, 3]) is None


def measured(axis: str, size: int, seconds: float, mib: float) -> dict[str, object]:
    about = {"hardware": "a CPU", "torch": "2", "page_mb": 1.5}
    return {"axis": axis, "size": size, "seconds": seconds, "mib": mib, "mib_before": 200.0, **about}


def test_the_table_has_what_was_measured_last_and_says_why_pairs_are_quadratic() -> None:
    rows = [measured("report", size, size / 1000, 200 + size / 10) for size in AXES["report"].sizes]
    text = table([measured("report", 1250, 99, 300), *rows])
    (line,) = [line for line in text.splitlines() if line.startswith("| report")]
    assert "99" not in line and line.count("| 1.00 |") == 2
    assert "every pair" in text and "a CPU" in text


def test_made_up_rows_are_rows_and_two_seeds_are_the_same_cells(tmp_path: Path) -> None:
    shape = Shape(models=3, attacks=2, images=20, draws=4)
    for seed in (0, 1):
        make(tmp_path / str(seed), shape, seed)
        part(tmp_path / str(seed), tmp_path / f"part {seed}", models=2)
    before, after = (Results.read([tmp_path / f"part {seed}"]) for seed in (0, 1))
    assert len(before.rows) == len(after.rows) == 4 and len(before.audits) == 2
    (one,) = before.tables()
    assert one.stochastic and not any(line.unaudited for line in one.lines)
    cells = [change for change in compare(before, after) if change.part == "attack"]
    assert len(cells) == 4 and all(change.pair for change in cells)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["report", "compare", "scan"])
def test_ten_thousand_rows(axis: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "ten thousand"
    folder.mkdir(exist_ok=True)
    found = point(axis, 10_000, folder)
    print(found)
    assert found["seconds"] < {"report": 20, "compare": 60, "scan": 15}[axis]
    assert found.get("page_mb", 0) < 10


def test_every_axis_is_measured_at_sizes_that_grow() -> None:
    for axis in scaling.AXES.values():
        assert list(axis.sizes) == sorted(axis.sizes) and (len(axis.sizes) > scaling.FITTED or axis.clock)
