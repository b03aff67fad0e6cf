"""An assessment as a whole: the models with what was measured of them, deviations, the map, and the rows.

Its JSON is these records, field by field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustbench_local.report.assessment_parts import Condition, Shift

SCHEMA = 1  # of the JSON


@dataclass(frozen=True)
class Subject:
    """A deployed model on a data set, and all that was measured of it."""

    id: str
    model: str
    defense: str
    data: str
    families: tuple[str, ...]
    defense_settings: dict[str, Any]
    defense_version: int | list[int]
    weights_digest: str | None
    behaviour_digest: str | None
    model_about: dict[str, Any] | None
    conditions: tuple[Condition, ...]
    shifts: tuple[Shift, ...]

    @property
    def name(self) -> str:
        return f"{self.model} / {self.defense}"


@dataclass(frozen=True)
class Deviation:
    """What is not as it should be: `kind` is "left out", "failed", "not run", "missing", "flag", "not
    audited", "contradiction" or "audit"."""

    place: str
    subject: str
    condition: str
    kind: str
    what: str
    advice: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Baseline:
    """The comparison as a whole. tested: how many lines the p values are adjusted for; not_compared: (why, what)."""

    alpha: float
    power: float
    tested: int
    worse: int
    not_compared: tuple[tuple[str, str], ...]
    rows: tuple[RowRecord, ...]


@dataclass(frozen=True)
class RowRecord:
    """One row: its key, when it was written, what it is of, its main figures, and its place in `machines`."""

    key: str
    created: str
    status: str
    definition: dict[str, Any]
    figures: dict[str, Any]
    machine: int


@dataclass(frozen=True)
class Machine:
    """Versions and hardware, as `rows` rows recorded them."""

    environment: dict[str, Any]
    rows: int


@dataclass(frozen=True)
class Mapped:
    """A requirement in our words, the field of this report that speaks to it, and its value: None for not measured."""

    framework: str
    clause: str
    requirement: str
    field: str
    anchor: str | None
    value: str | None


@dataclass(frozen=True)
class Assessment:
    """The whole. identification: a digest of all that it is made of; first, last: when rows were written. What is
    always None is for whoever signs to fill in, or is deliberately not said.
    """

    schema: int
    title: str
    identification: str
    rows_digest: str
    first: str | None
    last: str | None
    machines: tuple[Machine, ...]
    subjects: tuple[Subject, ...]
    deviations: tuple[Deviation, ...]
    declared: float | None
    baseline: Baseline | None
    statement: str
    conformity: None
    opinions: None
    laboratory: None
    customer: None
    authorised_by: None
    requirements: tuple[Mapped, ...]
    rows: tuple[RowRecord, ...]
