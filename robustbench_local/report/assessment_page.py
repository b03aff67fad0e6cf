"""An assessment -> one HTML file laid out as a test report is, whose every number leads to its rows at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from robustbench_local.core.escaping import visible
from robustbench_local.report.assessment import assess, json_text, name_of
from robustbench_local.report.assessment_condition import is_fault
from robustbench_local.report.assessment_parts import Compared, Condition, Figure, Shift
from robustbench_local.report.assessment_record import Assessment, RowRecord, Subject
from robustbench_local.report.members import Groups
from robustbench_local.report.page import environment, policy
from robustbench_local.report.results import Results
from robustbench_local.report.text import interval, percent
from robustbench_local.report.words import data_name, within
from robustbench_local.storage.files import whole_file

_LISTED = 8  # ids of images, beyond which their number and digest have to do


@dataclass(frozen=True)
class RowGroup:
    """The rows of one condition, with what all of them have in common. rows: (anchor, record, what sets it apart,
    figures in words); elsewhere: keys of those that an earlier group lists.
    """

    id: str
    title: str
    shared: str
    rows: tuple[tuple[str, RowRecord, str, str], ...]
    elsewhere: tuple[str, ...]


def write_assessment(
    results: Results,
    folder: Path,
    title: str | None = None,
    declared: float | None = None,
    before: Results | None = None,
    groups: Groups | None = None,
) -> Assessment:
    """Write assessment.html and assessment.json into a folder; the same rows give the same files, byte for byte.

    Errors as in assess(); StoreError as in whole_file.
    """
    found = assess(results, title or folder.resolve().name, declared, before, groups)
    for name, text in (("assessment.html", page(found)), ("assessment.json", json_text(found))):
        with whole_file(folder / name) as file:
            file.write(text.encode())
    return found


def page(assessment: Assessment) -> str:
    """The whole file: no script, no request, and links that lead nowhere but within it."""
    made = environment()
    made.filters |= {"said": said, "within": within, "data_name": data_name, "name_of": name_of, "figures": _count}
    made.tests["fault"] = is_fault
    return made.get_template("assessment.html.j2").render(
        it=assessment,
        policy=policy("'none'"),
        methods=_methods(assessment.rows),
        samples=list(_samples(assessment)),
        groups=list(_groups(assessment)),
        before=_group("before", "Rows of the folder before", assessment.baseline.rows, "before-")
        if assessment.baseline
        else None,
        frameworks=[(name, list(rows)) for name, rows in groupby(assessment.requirements, lambda each: each.framework)],
        target=_target,
        changed=_changed,
        few=lambda count, what: f"{count:,} {what}{'s' if count != 1 else ''}",
    )


def said(value: Any) -> str:
    """A setting as it is shown: text as it is, all else as JSON."""
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.3g}"


def _target(figure: Figure, place: str) -> str:
    """Where a figure's number leads: to its row, or where it has several to all of its condition."""
    return f"row-{figure.rows[0]}" if len(figure.rows) == 1 else f"rows-{place}"


def _changed(changes: Iterable[Compared]) -> list[Compared]:
    """Those of many that are more than luck."""
    return [change for change in changes if change.what not in ("same", "within luck")]


def _methods(rows: Iterable[RowRecord]) -> list[tuple[str, Any, str, int]]:
    """(attack or corruption, its version, what it sees, how many rows) in the order of names."""
    found = Counter(
        (f"certificate: {about['certificate']}", said(about["certificate_version"]), "weights")
        if "certificate" in about
        else (str(about["attack"]), said(about["attack_version"]), str(about["access"]))
        for about in (row.definition for row in rows)
    )
    return [(*each, count) for each, count in sorted(found.items())]


def _samples(assessment: Assessment) -> Iterator[dict[str, str]]:
    """Each selection of images once."""
    seen = set()
    for subject in assessment.subjects:
        for each in _places(subject):
            sample = {
                "data": f"{data_name(each.data)}, {each.split}",
                "images": f"{each.images:,}",
                "ids": _ids(each.ids),
                "transform": said(each.transform) if each.transform else "",
                "under": each.under or "",
                "digest": each.data_digest,
            }
            if (key := tuple(sample.values())) not in seen:
                seen.add(key)
                yield sample


def _places(subject: Subject) -> tuple[Condition | Shift, ...]:
    return *subject.conditions, *subject.shifts


def _ids(ids: str | Sequence[int]) -> str:
    if isinstance(ids, str):
        first, _, end = ids.partition(":")
        return f"{first} to {int(end) - 1}"
    listed = ", ".join(map(str, ids[:_LISTED]))
    return listed if len(ids) <= _LISTED else f"{listed} and {len(ids) - _LISTED:,} more"


def _groups(assessment: Assessment) -> Iterator[RowGroup]:
    """Every row once: below the condition that it belongs to, and what belongs to none at the end."""
    records = {row.key: row for row in assessment.rows}
    placed: set[str] = set()
    for subject in assessment.subjects:
        for each in _places(subject):
            where = name_of(each) if isinstance(each, Condition) else f"{each.benchmark}, {each.images:,} images"
            title = f"{subject.name}, {data_name(each.data)} {each.split}, {where}"
            yield _group(each.id, title, [records[key] for key in each.rows], "row-", placed)
            placed |= {*each.rows}
    rest = [row for row in assessment.rows if row.key not in placed]
    if rest:
        yield _group("others", "Rows that no table shows", rest, "row-")


def _group(id: str, title: str, records: Sequence[RowRecord], anchor: str, placed: Collection[str] = ()) -> RowGroup:
    own = [record for record in records if record.key not in placed]
    texts = [{name: said(value) for name, value in record.definition.items()} for record in own]
    shared = {pair for pair in texts[0].items() if all(pair in text.items() for text in texts)} if texts else set()

    def listed(text: dict[str, str], common: bool) -> str:
        return ", ".join(f"{name}={value}" for name, value in text.items() if ((name, value) in shared) is common)

    return RowGroup(
        id,
        title,
        listed(texts[0], True) if texts else "",
        tuple(
            (f"{anchor}{record.key}", record, listed(text, False), ", ".join(_figures(record.figures)))
            for record, text in zip(own, texts, strict=True)
        ),
        tuple(record.key for record in records if record.key in placed),
    )


def _figures(known: dict[str, Any]) -> Iterator[str]:
    """ "robust accuracy 45.2 % (42.1–48.3)", and what else a row says of itself."""
    if (value := known.get("certified_accuracy")) is not None:
        low, high = known["certified_interval"]
        yield f"certified {percent(value)} % ({interval(low, high, '–')})"
        if known["confidence"] is not None:
            yield f"each image with a probability of {100 * known['confidence']:g} %"
    corrupts = "corruption_accuracy" in known
    for kind, name in (("clean", "clean"), ("corruption", "corrupted") if corrupts else ("robust", "robust")):
        if (value := known.get(f"{kind}_accuracy")) is not None:
            low, high = known[f"{kind}_interval"]
            yield f"{name} accuracy {percent(value)} % ({interval(low, high, '–')})"
    if "forwards_mean" in known and not corrupts:
        yield f"robust after rounding to 8 bits {percent(known['robust_accuracy_8bit'])} %"
        yield f"passes {_count(known['forwards_mean'])} + {_count(known['backwards_mean'])} an image"
        if known["distance_median"] is not None:
            yield f"median distance {known['distance_median']:.4g}"
    if known.get("flags"):
        yield f"flags: {' '.join(map(visible, known['flags']))}"
    if "error" in known:
        yield known["error"]
