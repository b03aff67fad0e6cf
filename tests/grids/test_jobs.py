"""The order of a grid's jobs, and how they are shared out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.grids.executors.order import costs, in_order, share
from robustbench_local.grids.executors.settings import share_of
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.jobs import Job, dearest_first, grouped, jobs_of, shared_out


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    attacks = ["fgsm", {"pgd": {"steps": 40}}, {"pgd": {"steps": 7}}, "deepfool"]
    settings = {"n": 8, "models": "mnist_small", "defenses": ["none", "jpeg"], "attacks": attacks, "data": "mnist"}
    settings |= {"threats": ["linf:0.1"], "results": str(tmp_path), "device": "cpu", "source": "bundled"}
    return Grid.open("quickstart", settings, Progress())


def test_every_cell_and_one_audit_for_each_model(grid: Grid) -> None:
    jobs = jobs_of(grid.groups)
    assert [grid.cells[job.group.start + job.cell] for job in jobs if job.cell is not None] == list(grid.cells)
    assert len(jobs) == len(grid.cells) + len(grid.groups) and len(grid.groups) == 2
    assert set(in_order(grid)) == set(jobs)


def test_the_dearest_come_first_and_an_audit_after_its_cells(grid: Grid) -> None:
    work = [float(place + 1) for place in range(len(grid.cells))]
    ordered = dearest_first(jobs_of(grid.groups), work)
    half = len(ordered) // 2
    assert {job.group.place for job in ordered[:half]} == {1}, "its dearest cell is the dearest of all"
    for part in (ordered[:half], ordered[half:]):
        assert part[-1].cell is None
        cells = [job.cell for job in part[:-1] if job.cell is not None]
        assert all(a > b for a, b in pairwise(cells))


def test_a_cell_of_more_passes_costs_more(grid: Grid) -> None:
    """fgsm, pgd of 40 steps, of 7."""
    fgsm, long, short = costs(grid)[:3]
    assert 5 < long / short < 40 / 7 and fgsm < short


def test_shares_are_disjoint_complete_about_equal_and_the_same_for_all(grid: Grid) -> None:
    jobs = jobs_of(grid.groups)
    cells = {job for job in jobs if job.cell is not None}
    shares = [share(grid, f"{place}/3") for place in range(3)]
    assert set.union(*shares) == cells and sum(map(len, shares)) == len(cells)
    again = Grid.of(grid.config, grid.name, Progress())
    assert [sorted(job.label for job in share(again, f"{place}/3")) for place in range(3)] == [
        sorted(job.label for job in each) for each in shares
    ]
    work = [1.0] * len(grid.cells)
    assert [len(each) for each in shared_out(jobs, work, 4)] == [2, 2, 2, 2]
    lopsided = [len(grid.cells) * 1.0, *[1.0] * (len(grid.cells) - 1)]
    assert sorted(len(each) for each in shared_out(jobs, lopsided, 2)) == [1, len(grid.cells) - 1]


def test_unknown_costs_are_shared_out_too(grid: Grid) -> None:
    assert [len(each) for each in shared_out(jobs_of(grid.groups), [0.0] * len(grid.cells), 4)] == [2, 2, 2, 2]


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/3", "a/b", "1/", "0/0", "1/3/5"])
def test_a_share_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="it must be i/N"):
        share_of(text)


def test_a_group_is_one_model_and_knows_where_it_starts(grid: Grid) -> None:
    groups = grouped(grid.cells)
    assert [group.start for group in groups] == [0, 4] and [len(group.cells) for group in groups] == [4, 4]
    assert Job(groups[1], 2).label == str(grid.cells[6]) and Job(groups[0]).label.startswith("audit of mnist")
