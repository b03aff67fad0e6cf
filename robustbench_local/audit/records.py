"""Audits as they are kept beside a grid's rows, one for each model on each selection of images: what they found.

Tables take the lower number where a stronger attack found one. Reading them needs neither judge nor plug-ins.
"""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.core.escaping import shown
from robustbench_local.storage.row import Row
from robustbench_local.storage.shape import Shape, all_of, count, either, flag, maybe, number, one_of, only, text, whole
from robustbench_local.storage.store import Store

RETRIED = "a stronger attack"  # the check that is said of

_FINDING = {
    "check": text,
    "status": one_of(*(status.name.lower() for status in Status)),
    "evidence": text,
    "figures": all_of(maybe(number)),
    "source": text,
    "advice": text,
}
_RETRY = {"threat": text, "attack": text, "asked": count, "fell": [whole], "lowers": [text]}
_SHAPE = Shape(
    {
        "rows": [text],
        "findings": [{"finding": only(_FINDING), "threat": text, "attack": flag}],
        "retries": [either(only(_RETRY), only({**_RETRY, "also": [whole]}))],
    }
)


@dataclass(frozen=True)
class RowFinding:
    """finding: as of a model's audit; threat: whose table it belongs to; attack: whether it is the attack that is
    suspected, so that a stronger one should be tried.
    """

    finding: Finding
    threat: str
    attack: bool = False


@dataclass(frozen=True)
class Retry:
    """A stronger attack on the first `asked` images that were robust within `threat`; broken: ids of those it succeeded
    on.

    lowers: keys of the rows whose number is lowered by them. also: ids of the images that it tried besides, since they
    were the nearest to a success. asked is 0 where no attack could run: its finding is then UNCHECKED, and says why.
    Files say "fell" for broken.
    """

    threat: str
    attack: str
    asked: int
    broken: tuple[int, ...]
    lowers: tuple[str, ...]
    also: tuple[int, ...] = ()

    @property
    def tried(self) -> int:
        """How many images it looked at."""
        return self.asked + len(self.also)


@dataclass(frozen=True)
class Audit:
    """What an audit of one model's rows found. rows: their keys."""

    rows: tuple[str, ...]
    findings: tuple[RowFinding, ...]
    retries: tuple[Retry, ...]

    @property
    def of_rows(self) -> tuple[RowFinding, ...]:
        """What the rows alone showed: of each retry there is one finding after them."""
        return self.findings[: len(self.findings) - len(self.retries)]

    def unchecked(self, threat: str) -> list[str]:
        """Why no stronger attack was tried within a threat, though it should have been."""
        return [
            each.finding.evidence
            for each in self.findings
            if each.threat == threat and each.finding.check == RETRIED and each.finding.status is Status.UNCHECKED
        ]

    def faults(self, threat: str) -> list[Finding]:
        """What is not sound within a threat, the worst first."""
        bad = [each.finding for each in self.findings if each.threat == threat and each.finding.status > Status.SOUND]
        return sorted(bad, key=lambda finding: -finding.status)


class Audits(tuple[Audit, ...]):
    """Audits, found by the rows that they are about: who asks for one model's goes through no others."""

    @functools.cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = defaultdict(list)
        for place, audit in enumerate(self):
            for key in {*audit.rows, *(key for retry in audit.retries for key in retry.lowers)}:
                places[key].append(place)
        return places

    def of(self, keys: Iterable[str]) -> list[Audit]:
        """Those that saw any of the rows of these keys, or lower its number."""
        places = {place for key in keys for place in self._places.get(key, ())}
        return [self[place] for place in sorted(places)]

    def that_saw(self, keys: Iterable[str]) -> list[Audit]:
        """Those among whose rows are some of these keys."""
        wanted = {*keys}
        return [audit for audit in self.of(wanted) if not wanted.isdisjoint(audit.rows)]


def audits(store: Store) -> Audits:
    """All that are kept; what cannot be read counts as missing."""
    found = map(read, store.audits().values())
    return Audits(audit for audit in found if audit is not None)


def keep(store: Store, name: str, audit: Audit) -> None:
    """Write it beside the rows; one of the same name is replaced."""
    plain = asdict(audit)
    for each in plain["findings"]:
        each["finding"]["status"] = each["finding"]["status"].name.lower()
    for each in plain["retries"]:
        each["fell"] = each.pop("broken")
    store.keep_audit(name, plain)


def read(record: Mapping[str, Any]) -> Audit | None:
    """None, and a warning, for what is not as audits are."""
    if fault := _SHAPE.wrong(record, "it"):
        warnings.warn(shown(f"the audit {record['name']} counts as missing: {fault}", "terminal"), stacklevel=2)
        return None
    findings = tuple(
        RowFinding(
            Finding(**each["finding"] | {"status": Status[each["finding"]["status"].upper()]}),
            each["threat"],
            each["attack"],
        )
        for each in record["findings"]
    )
    retries = tuple(
        Retry(
            each["threat"],
            each["attack"],
            each["asked"],
            tuple(each["fell"]),
            tuple(each["lowers"]),
            tuple(each.get("also", ())),  # no audit had it before 0.3
        )
        for each in record["retries"]
    )
    return Audit(tuple(record["rows"]), findings, retries)


def lowered(robust: npt.NDArray[np.float64], ids: npt.NDArray[Any], key: str, found: Audits) -> npt.NDArray[np.float64]:
    """robust (N,) of the row of that key, 0 where a stronger attack succeeded on the image of that id (N,)."""
    broken = [np.isin(ids, retry.broken) for audit in found.of([key]) for retry in audit.retries if key in retry.lowers]
    lower: npt.NDArray[np.float64] = np.where(np.logical_or.reduce(broken), 0.0, robust) if broken else robust
    return lower


def asked(
    retry: Retry,
    audit: Audit,
    rows: Mapping[str, Row],
    robust: Callable[[Row], npt.NDArray[Any]],
    ids: Callable[[Row], npt.NDArray[Any]],
) -> npt.NDArray[Any] | None:
    """Ids of the images that a retry of an audit asked about: the first that are robust in all rows of its threat, and
    those it tried besides.

    rows by key. None where some of the audit's are not there, and nobody can tell.
    """
    if not rows.keys() >= {*audit.rows}:
        return None
    own = [rows[key] for key in audit.rows if rows[key].threat == retry.threat]
    everywhere = np.logical_and.reduce([robust(row) for row in own])
    first = ids(own[0])[everywhere][: retry.asked]
    found: npt.NDArray[Any] = np.concatenate([first, np.asarray(retry.also, dtype=first.dtype)])
    return found
