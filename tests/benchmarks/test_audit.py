"""The cases that the audit is tried on: well-formed, and in two halves of which only one is counted as an estimate."""

from __future__ import annotations

import torch

from benchmarks.audit import Asked, all_cases, right, table
from robustbench_local.audit.checklist import CHECKS


def cases() -> dict[str, Asked]:
    return all_cases(torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64), None)


def test_causes_are_names_of_checks_and_both_halves_are_large() -> None:
    known = {check.name for check in CHECKS}
    assert not [(name, case.causes) for name, case in cases().items() if not {*case.causes} <= known]
    liars = [case for case in cases().values() if case.causes]
    honest = [case for case in cases().values() if not case.causes]
    assert len(liars) >= 90 and len(honest) >= 40
    assert sum(not case.seen for case in liars) >= 30 and sum(not case.seen for case in honest) >= 30


def row(case: str, *, liar: bool, seen: bool, named: list[str]) -> dict[str, object]:
    return {
        "case": case,
        "liar": liar,
        "seen": seen,
        "causes": ["logits"] if liar else [],
        "named": [[check, "broken", "because"] for check in named],
        "checked": 30,
    }


def test_only_what_no_check_was_changed_for_has_an_interval() -> None:
    rows = [
        row("a", liar=True, seen=False, named=["logits"]),
        row("b", liar=True, seen=False, named=["time"]),  # named for another reason: not found
        row("c", liar=False, seen=False, named=[]),
        row("d", liar=True, seen=True, named=["logits", "time"]),
        row("e", liar=False, seen=True, named=["time"]),
    ]
    assert [right(each) for each in rows] == [True, False, True, True, False]
    text = table(rows, "about")
    first, second = text.split("## That checks were made or changed with")
    assert "1 of 2 found, by a check that knows the fault: 50.0 % (95 % interval 9.5-90.5 %)" in first
    assert "1 of 1 come out sound: 100.0 % (95 % interval 20.7-100.0 %)" in first
    assert "1 of 1 found, by a check that knows the fault." in second and "interval" not in second
    assert "0 of 1 come out sound." in second
