"""Results folders for assessments: attacks, corruptions, classes and an audit, before and after a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import Audit, Retry, RowFinding, keep
from robustbench_local.storage.row import Row
from tests.helpers.rows import a_row, stored

N = 40
Made = tuple[Row, np.ndarray]


def bits(k: int, n: int = N) -> list[int]:
    return [1] * k + [0] * (n - k)


def cell(robust: list[Any] | None, created: str = "2026-01-02T03:04:05+00:00", **about: Any) -> Made:
    """A row on N images of two classes, "cat" and "dog" in turn, that says when it was written."""
    row, made = a_row(robust, **({"ids": f"0:{N}"} | about))
    row["created"] = created
    row["environment"] = {
        "robustbench_local": "0.1.0",
        "torch": "2.0",
        "python": "3.12",
        "device": "a CPU",
        "threads": 1,
    }
    if robust is not None:
        shares = made if made.ndim == 1 else made.mean(1)
        row["results"]["per_class"] = [
            {"class": name, "n": N // 2, "clean": 1.0, "robust": float(shares[place::2].mean())}
            for place, name in enumerate(("cat", "dog"))
        ]
    return row, made


def corrupted(k: int | None, name: str, severity: int, **about: Any) -> Made:
    """A row of a corruption that leaves k of the N images right."""
    settings = {"attack": name, "attack_settings": {"severity": severity}, "corruption": "CIFAR-10-C"}
    robust = None if k is None else bits(k)
    return cell(robust, **(settings | {"threat": "none", "access": "none"} | about))


def audited(folder: Path, made: Made, status: Status, asked: int = 0, broken: tuple[int, ...] = ()) -> None:
    """An audit of one row, whose stronger attack was tried on so many robust images and broke these."""
    row, _ = made
    threat = row.definition["threat"]
    finding = RowFinding(Finding("a stronger attack", status, "it succeeds", advice="run it on all"), threat)
    retry = Retry(threat, "best", asked, broken, (row.key,))
    keep(stored(folder, made, audited=False), "a.json", Audit((row.key,), (finding,), (retry,)))
