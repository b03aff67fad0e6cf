"""What is measured of a model, as an assessment has it: plain records, field by field its JSON. None: not measured.

Shares are in [0, 1]. Names of strangers are as `visible` shows them. `rows` are keys of the rows a figure is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A share over n images with its 95 % interval. method: of the interval, where it is known."""

    value: float
    low: float
    high: float
    n: int
    method: str | None
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Declared:
    """A level that somebody declares, in [0, 1], and where the measured interval lies to it."""

    level: float
    says: str


@dataclass(frozen=True)
class AttackResult:
    """One attack. adaptive: it knew of the defense, otherwise it counts in no worst case; targeted: towards a class.

    robust is None where the cell was not run or failed, which `missing` says. budget: forward passes that it may spend
    on an image, None for no limit; forwards, backwards: the mean number spent on an image; prepared: spent once, on no
    image. flags: (flag, what it means).
    """

    attack: str
    access: str | None
    adaptive: bool
    targeted: bool
    settings: dict[str, Any]
    budget: int | None
    forwards: float | None
    backwards: float | None
    prepared: float | None
    robust: Figure | None
    missing: str | None
    distance_median: float | None
    flags: tuple[tuple[str, str], ...]
    row: str | None


@dataclass(frozen=True)
class AuditFinding:
    """What one check of the audit found. status: "unchecked", "sound", "suspicious" or "broken"."""

    check: str
    status: str
    evidence: str
    advice: str
    source: str


@dataclass(frozen=True)
class Retry:
    """A stronger attack of the audit: on how many robust images it was tried, how many it broke."""

    attack: str
    asked: int
    broken: int


@dataclass(frozen=True)
class Part:
    """The class or group that fares worst, of so many. figure: its robust accuracy; the intervals hold all together.

    gap: between the best and the worst, with an interval that allows for having picked the two.
    """

    name: str
    best: str
    of: int
    figure: Figure
    gap: Figure | None


@dataclass(frozen=True)
class Compared:
    """One line of the comparison with the folder before, on the n images that both have.

    lost, gained: images that were right (or robust) only before, only now. p: of McNemar's exact test (random models:
    sign flips), adjusted by Holm for all lines. noticeable: the smallest drop that would have been noticed with the
    baseline's power; None of random models, and where none is large enough. rows_before: keys in the folder before.
    """

    part: str
    name: str
    what: str
    before: float | None
    after: float | None
    n: int | None
    lost: int | None
    gained: int | None
    p: float | None
    noticeable: float | None
    differs: tuple[str, ...]
    rows_before: tuple[str, ...]
    rows: tuple[str, ...]


@dataclass(frozen=True)
class WorstCase:
    """Per image the least over all attacks that `over` names."""

    over: str
    figure: Figure | None


@dataclass(frozen=True)
class Condition:
    """A model on a selection of images within a threat model: what it was measured under, and what was found.

    robust: the worst case over all attacks, an upper bound of the true robust accuracy. verified: a lower bound that a
    proof gives; contradictions: attacks that broke what is proved. broken: the audit says that the figure is not to be
    believed; unaudited: why there is no audit, or not of all. compared: None without a folder to compare with.
    """

    id: str
    data: str
    split: str
    images: int
    ids: str | list[int]
    data_digest: str
    transform: dict[str, Any] | None
    threat: str
    targets: str | None
    under: str | None
    grid: str
    precision: tuple[str, ...]
    seeds: tuple[int, ...]
    random: bool
    draws: int | None
    clean: Figure | None
    robust: Figure | None
    worst_cases: tuple[WorstCase, ...]
    verified: Figure | None
    contradictions: tuple[str, ...]
    declared: Declared | None
    attacks: tuple[AttackResult, ...]
    broken: bool
    findings: tuple[AuditFinding, ...]
    retries: tuple[Retry, ...]
    unaudited: str | None
    worst_class: Part | None
    worst_group: Part | None
    compared: tuple[Compared, ...] | None
    rows: tuple[str, ...]


@dataclass(frozen=True)
class CorruptionResult:
    """Accuracy under one corruption, per severity and in the mean; None where a cell failed or is missing."""

    corruption: str
    severities: tuple[tuple[int, Figure | None], ...]
    mean: Figure | None


@dataclass(frozen=True)
class Shift:
    """A model under a set of corruptions: accuracy on clean and on corrupted images, whether or not right before.

    drop: the clean accuracy less the mean under corruptions.
    """

    id: str
    data: str
    split: str
    images: int
    ids: str | list[int]
    data_digest: str
    transform: dict[str, Any] | None
    benchmark: str
    under: str | None
    seeds: tuple[int, ...]
    clean: Figure | None
    mean: Figure | None
    drop: float | None
    corruptions: tuple[CorruptionResult, ...]
    missing: tuple[str, ...]
    flags: tuple[tuple[str, str], ...]
    compared: tuple[Compared, ...] | None
    rows: tuple[str, ...]
