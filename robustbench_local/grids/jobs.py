"""What there is to do in a grid, in pieces that any process can take: a cell, or the audit of one model's rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from robustbench_local.grids.cell import Cell
from robustbench_local.training.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class Group:
    """The cells of one deployed model; place: of the group among the grid's, start: of its first cell."""

    place: int
    start: int
    spec: ModelSpec
    cells: tuple[Cell, ...]

    def __str__(self) -> str:
        return f"{self.spec.data} {self.spec.model.label} {self.spec.label}"


@dataclass(frozen=True)
class Job:
    """A cell of a group, or, where cell is None, the audit of the group's rows, once all of them are there."""

    group: Group
    cell: int | None = None

    @property
    def label(self) -> str:
        return f"audit of {self.group}" if self.cell is None else str(self.group.cells[self.cell])


def grouped(cells: Iterable[Cell]) -> list[Group]:
    """In the order of the cells."""
    found: list[Group] = []
    for _, own in groupby(cells, key=lambda cell: id(cell.model)):
        group = tuple(own)
        start = found[-1].start + len(found[-1].cells) if found else 0
        found.append(Group(len(found), start, group[0].model, group))
    return found


def jobs_of(groups: Iterable[Group]) -> list[Job]:
    """In the order of the cells; each group's audit comes after its cells."""
    return [job for group in groups for job in (*(Job(group, cell) for cell in range(len(group.cells))), Job(group))]


def dearest_first(jobs: Sequence[Job], work: Sequence[float]) -> list[Job]:
    """By what they cost, so that no long one is left for the end: models by their dearest cell, then that model's
    cells, then its audit. One model's cells stay together, since they share what it answered about clean images.

    work: of each cell of the grid.
    """
    dearest = {job.group.place: 0.0 for job in jobs}
    for job in jobs:
        dearest[job.group.place] = max(dearest[job.group.place], _work(job, work))
    return sorted(
        jobs, key=lambda job: (-dearest[job.group.place], job.group.place, job.cell is None, -_work(job, work))
    )


def shared_out(jobs: Sequence[Job], work: Sequence[float], workers: int) -> list[set[Job]]:
    """The cells for each of so many workers, of about equal cost, and the same whoever asks.

    Audits are nobody's: whoever ends a model's last cell does its audit.
    """
    shares: list[set[Job]] = [set() for _ in range(workers)]
    loads = [0.0] * workers
    for job in sorted((job for job in jobs if job.cell is not None), key=lambda job: -_work(job, work)):
        least = loads.index(min(loads))
        shares[least].add(job)
        loads[least] += _work(job, work) or 1.0
    return shares


def _work(job: Job, work: Sequence[float]) -> float:
    return 0.0 if job.cell is None else work[job.group.start + job.cell]
