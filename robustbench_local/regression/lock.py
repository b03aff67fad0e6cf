"""The lock file: what each check found of the last model, and of the first. One JSON file, to be reviewed as such."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_local.core.errors import StoreError
from robustbench_local.regression import shares
from robustbench_local.regression.measured import Measured
from robustbench_local.regression.shares import MOST, Shares
from robustbench_local.storage.files import whole_file
from robustbench_local.storage.sealing import digest
from robustbench_local.storage.shape import all_of, count, flag, maybe, share, text, whole, wrong

NAME = "robustness.lock.json"
SCHEMA = 1
UPDATE = "pytest --robustness-update (or robustbench-local check --update)"
ANEW = f"take it from version control, or remove it and write it anew with {UPDATE}"

Record = dict[str, Any]

_MODEL = {
    "model": text,
    "weights": text,
    "behaviour": maybe(text),
    "seed": whole,
    "versions": all_of(text),
    "device": text,
    "accuracy": all_of(share),
    "levels": all_of(count),
    "images": maybe(text),
    "clean": [text],
    "attacks?": [text],
    "corruptions?": [text],
    "margins?": [text],
}
_ENTRY = {
    "data": {"name": text, "split": text, "digest": text, "n": count},
    "suite": {"name": text, "digest": text, "attacks": [text], "left_out": [text]},
    "last": _MODEL,
    "anchor?": _MODEL,
    "replays": flag,
    "tests": [text],
    "checksum": text,
}


@dataclass(frozen=True, eq=False)
class Baseline:
    """A model as the lock knows it. record: as the file has it; shares: {measure: (N,)}, clean among them."""

    record: Mapping[str, Any]
    shares: Mapping[str, Shares]
    margins: Shares | None

    @classmethod
    def read(cls, record: Mapping[str, Any], n: int) -> Baseline:
        found = {name: shares.read(record[name], levels, n) for name, levels in record["levels"].items()}
        kept = record.get("margins")
        return cls(record, found, None if kept is None else shares.margins(shares.read(kept, MOST, n)))

    @property
    def images(self) -> str | None:
        """The digest of the adversarial images that broke it."""
        digest: str | None = self.record["images"]
        return digest


@dataclass(frozen=True, eq=False)
class Entry:
    """One check in the lock. anchor: what updates never move, None where it is the last model itself."""

    record: Mapping[str, Any]
    last: Baseline
    anchor: Baseline | None

    @property
    def tests(self) -> tuple[str, ...]:
        return tuple(self.record["tests"])

    @property
    def comparisons(self) -> int:
        """How many hypotheses a check against it tests."""
        measures = len(self.last.shares) - 1
        return measures * (1 if self.anchor is None else 2) + bool(self.record["replays"])

    def faults(self, measured: Measured) -> list[str]:
        """Why nothing measured now can be compared with it: other images, other attacks."""
        record, images = self.record, measured.images
        found = []
        if record["data"]["digest"] != images.digest[:16]:
            was = f"{record['data']['n']} images of {record['data']['name']}, digest {record['data']['digest']}"
            found.append(
                f"the images have changed since the lock was written (then {was}; now {len(images)} of {images.name},"
                f" digest {images.digest[:16]}): other images cannot be compared one by one"
            )
        for what, then, now in (
            ("the suite has", record["suite"]["attacks"], measured.suite),
            ("what the model's access leaves out has", record["suite"]["left_out"], measured.left_out),
        ):
            if lost := [*_only(then, now, "then"), *_only(now, then, "now")]:
                found.append(f"{what} changed since the lock was written ({'; '.join(lost)})")
        return found


def entry_of(measured: Measured, before: Entry | None, tests: Sequence[str], replays: bool, re_anchor: bool) -> Record:
    """What the lock holds of a check from now on. The anchor stays, but for other images or another suite, or where
    re_anchor asks for it.
    """
    now, images = _model(measured), measured.images
    kept = None if before is None or re_anchor or before.faults(measured) else before
    anchor = None if kept is None else dict((kept.anchor or kept.last).record)
    record = {
        "data": {"name": images.name, "split": images.split, "digest": images.digest[:16], "n": len(images)},
        "suite": {
            "name": measured.check.suite,
            "digest": digest(list(measured.suite), 16),
            "attacks": list(measured.suite),
            "left_out": list(measured.left_out),
        },
        "last": now,
        **({} if anchor is None or anchor == now else {"anchor": anchor}),
        "replays": replays,
        "tests": sorted({*tests, *(before.tests if before else ())}),
    }
    return sealed(record)


def joined(parts: Iterable[Mapping[str, Record]]) -> dict[str, Record]:
    """The records of several workers; of a check that two measured, with the tests of both."""
    found: dict[str, Record] = {}
    for name, record in (each for part in parts for each in part.items()):
        tests = sorted({*record["tests"], *found.get(name, record)["tests"]})
        found[name] = sealed({**record, "tests": tests})
    return found


def sealed(record: Mapping[str, Any]) -> Record:
    """With its checksum: lines that a merge has put together from two records are noticed."""
    plain = {key: value for key, value in record.items() if key != "checksum"}
    return {**plain, "checksum": digest(plain, 16)}


def read(path: Path) -> dict[str, Entry]:
    """{check: entry}; none where there is no file. StoreError, with what to do, for what is no lock file."""
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read ({error}): {ANEW}") from error
    if any(line.startswith(("<<<<<<<", ">>>>>>>", "|||||||")) for line in content.splitlines()):
        raise StoreError(
            f"{path} holds the marks of a merge conflict: take either side as a whole, or remove it, then {UPDATE}"
        )
    try:
        whole_record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is no JSON ({error}): {ANEW}") from error
    if not isinstance(whole_record, dict) or not isinstance(whole_record.get("checks"), dict):
        raise StoreError(f"{path} is no lock file of robustness checks: {ANEW}")
    if whole_record.get("schema") != SCHEMA:
        raise StoreError(f"{path} has schema {whole_record.get('schema')!r:.40}, this version reads {SCHEMA}: {ANEW}")
    return {name: _entry(path, name, record) for name, record in whole_record["checks"].items()}


def write(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """All entries, by name; the file is whole, or what it was."""
    record = {"schema": SCHEMA, "checks": {name: entries[name] for name in sorted(entries)}}
    with whole_file(path) as file:
        file.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")


def parsed(record: Mapping[str, Any]) -> Entry:
    """The entry that a record of `entry_of` is. StoreError where its lines do not hold its images."""
    n = record["data"]["n"]
    anchor = Baseline.read(record["anchor"], n) if "anchor" in record else None
    return Entry(record, Baseline.read(record["last"], n), anchor)


def _entry(path: Path, name: str, record: Any) -> Entry:
    fault = wrong(record, _ENTRY, "it") if isinstance(record, dict) else "it is no object"
    if fault is None and sealed(record)["checksum"] != record["checksum"]:
        fault = "its checksum is another: it was edited, or a merge put it together from two"
    try:
        if fault is None:
            return parsed(record)
    except (StoreError, KeyError) as error:
        fault = str(error)
    raise StoreError(f'{path}: the entry "{name}" cannot be used, {fault}: {ANEW}')


def _model(measured: Measured) -> Record:
    figures = measured.figures
    assert figures is not None
    each = {"clean": figures.clean, **figures.shares}
    return {
        **measured.identity,
        "accuracy": {name: round(float(np.mean(values)), 6) for name, values in each.items()},
        "levels": dict(figures.levels),
        "images": None if measured.known is None else measured.known.digest,
        **{name: shares.written(values, figures.levels[name]) for name, values in each.items()},
        **({} if figures.margins is None else {"margins": shares.written(shares.coarse(figures.margins), MOST)}),
    }


def _only(these: Sequence[str], those: Sequence[str], when: str) -> list[str]:
    return [f"only {when}: {each}" for each in these if each not in those]
