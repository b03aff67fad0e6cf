"""An assessment's figures are those of the metrics, each with the rows it is made of; what is missing is null."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.audit.finding import Status
from robustbench_local.core.errors import ConfigError, DataError, StoreError
from robustbench_local.metrics.paired import holm, mcnemar, noticeable
from robustbench_local.metrics.rates import cluster_bootstrap, simultaneous, wilson
from robustbench_local.report.assessment import assess, json_text
from robustbench_local.report.assessment_parts import Condition, Figure, Shift
from robustbench_local.report.assessment_record import Assessment
from robustbench_local.report.results import Results
from robustbench_local.storage.packing import pack
from robustbench_local.storage.store import Store
from tests.helpers.assessed import Made, N, audited, bits, cell, corrupted
from tests.helpers.rows import stored

EVASION = (
    ("white-box", "attacks that see gradients"),
    ("black-box", "attacks that see scores or labels"),
    ("no query", "attacks that see nothing"),
)


def assessed(folder: Path, *made: Made, before: list[Made] | None = None, **options: Any) -> Assessment:
    stored(folder / "now", *made)
    if before is not None:
        stored(folder / "before", *before)
        options["before"] = Results.read([folder / "before"])
    return assess(Results.read([folder / "now"]), "title", **options)


def only(found: Assessment) -> Condition:
    (condition,) = (each for subject in found.subjects for each in subject.conditions)
    return condition


def shift(found: Assessment) -> Shift:
    (each,) = (each for subject in found.subjects for each in subject.shifts)
    return each


def three(figure: Figure | None) -> tuple[float, float, float]:
    assert figure is not None
    return figure.value, figure.low, figure.high


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object within a value."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(each)


def test_the_worst_case_is_per_image_and_names_its_rows(tmp_path: Path) -> None:
    first = cell([*bits(30, 35), *bits(0, 5)])
    second = cell([0] * 10 + [1] * 30, attack="square", access="scores")
    found = only(assessed(tmp_path, first, second))
    assert three(found.robust) == (0.5, *wilson(20, N))  # 10 .. 29; the least of the two means would be 0.75
    assert found.robust and {*found.robust.rows} == {first[0].key, second[0].key}
    assert (found.robust.n, found.robust.method) == (N, "Wilson")
    assert [each.over for each in found.worst_cases] == ["worst case, scores", "worst case, gradients"]
    scores = found.worst_cases[0].figure
    assert three(scores) == (0.75, *wilson(30, N)) and scores and scores.rows == (second[0].key,)
    assert found.clean and found.clean.rows == (found.rows[0],)
    by_name = {attack.attack: attack for attack in found.attacks}
    assert (by_name["pgd"].access, by_name["pgd"].forwards, by_name["pgd"].budget) == ("gradients", 11.0, None)
    assert three(by_name["square"].robust) == (0.75, *wilson(30, N))


def test_a_naive_attack_counts_in_no_worst_case(tmp_path: Path) -> None:
    made = cell(bits(30))
    found = only(assessed(tmp_path, made, cell(bits(3), adaptive=False)))
    assert found.robust and found.robust.value == 0.75 and found.robust.rows == (made[0].key,)
    assert {attack.attack: attack.adaptive for attack in found.attacks} == {"pgd": True, "naive pgd": False}


def test_a_union_is_made_of_the_rows_of_all_its_threats(tmp_path: Path) -> None:
    one, two = cell(bits(30)), cell([0] * 10 + [1] * 30, threat="l2:1")
    (subject,) = assessed(tmp_path, one, two).subjects
    for each in subject.conditions:
        assert each.worst_cases[-1].over == "union of l2:1, linf:8/255"
        union = each.worst_cases[-1].figure
        assert union and union.value == 0.5 and {*union.rows} == {one[0].key, two[0].key}
        assert each.robust and each.robust.value == 0.75


def test_a_random_model_has_its_draws_and_its_bootstrap(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).random((N, 20)) < np.linspace(0, 1, N)[:, None]
    found = only(assessed(tmp_path, cell(draws.tolist())))
    assert found.random and found.draws == 20
    assert three(found.robust) == pytest.approx((draws.mean(), *cluster_bootstrap(draws.mean(1))))
    assert found.robust and found.robust.method == "cluster bootstrap over images and their draws"


@pytest.mark.parametrize(
    ("level", "says"),
    [
        (wilson(30, N)[0], "the interval's lower side reaches it"),
        (wilson(30, N)[0] + 1e-9, "the interval's lower side does not reach it"),
        (wilson(30, N)[1], "the interval's lower side does not reach it"),
        (wilson(30, N)[1] + 1e-9, "the whole interval is below it"),
    ],
)
def test_a_declared_level_stands_beside_the_interval(level: float, says: str, tmp_path: Path) -> None:
    found = only(assessed(tmp_path, cell(bits(30)), declared=level))
    assert found.declared and (found.declared.level, found.declared.says) == (level, says)


def test_a_level_that_is_no_share_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"45.*\[0, 1\]"):
        assessed(tmp_path, cell(bits(30)), declared=45)


def test_the_worst_class_and_group_have_intervals_that_hold_together(tmp_path: Path) -> None:
    """Cats are the even images: 20 of 20 robust; dogs 10 of 20."""
    robust = [1, 1, 1, 0] * 10
    found = only(assessed(tmp_path, cell(robust), groups={"first": [*range(10)], "rest": [*range(10, 40)]}))
    dogs = simultaneous([robust[::2], robust[1::2]])[1]
    assert found.worst_class and (found.worst_class.name, found.worst_class.best) == ("dog", "cat")
    assert three(found.worst_class.figure) == (dogs.value, dogs.low, dogs.high)
    assert found.worst_class.gap and found.worst_class.gap.value == 0.5
    assert found.worst_group and found.worst_group.of == 2
    expected = simultaneous([robust[:10], robust[10:]])
    worst = min(expected, key=lambda rate: rate.value)
    assert three(found.worst_group.figure) == (worst.value, worst.low, worst.high)
    with pytest.raises(DataError, match="bird"):
        assessed(tmp_path, cell(robust), groups={"a": ["bird"]})


def test_corruptions_are_means_over_cells_and_name_them(tmp_path: Path) -> None:
    made = [corrupted(k, name, level) for name, level, k in (("fog", 1, 36), ("fog", 2, 20), ("snow", 1, 30))]
    found = shift(assessed(tmp_path, *made, corrupted(10, "snow", 2)))
    fog, snow = found.corruptions
    assert [figure.value if figure else None for _, figure in fog.severities] == [0.9, 0.5]
    assert three(fog.severities[0][1]) == (0.9, *wilson(36, N))
    assert fog.severities[0][1] and fog.severities[0][1].rows == (made[0][0].key,)
    assert snow.mean and snow.mean.value == pytest.approx(0.5)
    assert found.mean and found.mean.value == pytest.approx(0.6) and len(found.mean.rows) == 4
    assert found.drop == pytest.approx(0.4)


def test_a_corruption_that_failed_leaves_no_mean(tmp_path: Path) -> None:
    whole = assessed(tmp_path, corrupted(36, "fog", 1), corrupted(None, "fog", 2))
    found = shift(whole)
    assert found.mean is None and found.drop is None and found.corruptions[0].mean is None
    assert [(each.kind, each.what) for each in whole.deviations] == [
        ("missing", "fog 2: failed, ModelError: logits are NaN")
    ]


def test_an_attack_that_failed_leaves_no_worst_case_and_is_a_deviation(tmp_path: Path) -> None:
    failed = cell(None, attack="square", access="scores")
    whole = assessed(tmp_path, cell(bits(30), flags=["near_tie:2"]), failed, declared=0.5)
    found = only(whole)
    assert found.robust is None and found.worst_class is None
    assert found.declared and found.declared.says == "there is no worst case to hold it against"
    said = {each.kind: each for each in whole.deviations}
    assert said["failed"].what == "square: failed, ModelError: logits are NaN"
    assert said["failed"].rows == (failed[0].key,)
    assert said["flag"].what.startswith("pgd: near tie: 2. ")


def test_what_the_audit_broke_is_broken_and_said(tmp_path: Path) -> None:
    made = cell(bits(30))
    audited(tmp_path, made, Status.BROKEN, asked=20, broken=(0, 1, 2, 3))
    whole = assess(Results.read([tmp_path]), "title", declared=0.1)
    found = only(whole)
    assert found.robust and found.robust.value == 26 / N
    assert found.declared and found.declared.says == "the audit says that the figure is not to be believed"
    assert found.attacks[0].robust and found.attacks[0].robust.value == 30 / N  # as the attack left it
    assert found.broken and [(each.status, each.advice) for each in found.findings] == [("broken", "run it on all")]
    assert [(each.attack, each.asked, each.broken) for each in found.retries] == [("best", 20, 4)]
    assert [each.kind for each in whole.deviations] == ["audit"]
    stored(tmp_path / "none", made, audited=False)
    assert [each.kind for each in assess(Results.read([tmp_path / "none"]), "t").deviations] == ["not audited"]


def test_a_finding_belongs_to_its_threat(tmp_path: Path) -> None:
    other = cell(bits(30), threat="l2:1")
    stored(tmp_path, other, audited=False)
    audited(tmp_path, cell(bits(30)), Status.SUSPICIOUS)
    (record,) = Store(tmp_path).audits().values()
    Store(tmp_path).keep_audit("a.json", record | {"rows": [*record["rows"], other[0].key]})
    (subject,) = assess(Results.read([tmp_path]), "title").subjects
    assert {each.threat: len(each.findings) for each in subject.conditions} == {"l2:1": 0, "linf:8/255": 1}


def test_before_and_now_are_compared_image_by_image(tmp_path: Path) -> None:
    old, new = cell(bits(30)), cell(bits(18), weights_digest="v" * 64)
    gone = cell(bits(30), attack="square", access="scores")
    whole = assessed(tmp_path, new, before=[old, gone])
    found = {change.part: change for change in only(whole).compared or ()}
    attack = found["attack"]
    assert (attack.before, attack.after, attack.n, attack.lost, attack.gained) == (0.75, 0.45, N, 12, 0)
    p, _ = holm([mcnemar(12, 0), 1.0])  # beside clean accuracy
    assert attack.p == pytest.approx(p) and attack.what == "worse"
    assert attack.noticeable == pytest.approx(noticeable(N, 0.05 / 2, 12 / N))
    assert attack.rows == (new[0].key,) and attack.rows_before == (old[0].key,)
    assert found["clean"].what == "same"
    assert whole.baseline and (whole.baseline.tested, whole.baseline.worse) == (2, 1)
    assert [why for why, _ in whole.baseline.not_compared] == ["only before"]
    assert {row.key for row in whole.baseline.rows} == {old[0].key, gone[0].key}
    with pytest.raises(StoreError, match="no cell in common"):
        assessed(tmp_path / "other", new, before=[cell(bits(30), data="mnist")])


def test_corruptions_are_compared_too(tmp_path: Path) -> None:
    found = shift(assessed(tmp_path, corrupted(10, "fog", 1), before=[corrupted(36, "fog", 1)]))
    assert [(each.part, each.what) for each in found.compared or ()] == [("attack", "worse"), ("clean", "same")]


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    record = json.loads(json_text(assessed(tmp_path, cell(bits(30)))))
    for name in ("declared", "baseline", "conformity", "opinions", "laboratory", "customer", "authorised_by"):
        assert record[name] is None
    (subject,) = record["subjects"]
    (condition,) = subject["conditions"]
    assert subject["shifts"] == []
    for name in ("verified", "declared", "worst_group", "compared"):
        assert condition[name] is None
    empty = {each["field"] for each in record["requirements"] if each["value"] is None}
    assert {"verified lower bound", "mean accuracy under corruptions", "declared level", "none"} <= empty
    assert "robust accuracy, worst case" not in empty
    assert record["statement"] == "This report makes no claim of conformity."


def test_the_documentation_names_every_key_of_the_json(tmp_path: Path) -> None:
    text = (
        (Path(__file__).parents[2] / "docs/reports.md").read_text(encoding="utf-8").partition("### assessment.json")[2]
    )
    record = json.loads(json_text(assessed(tmp_path, cell(bits(30)), corrupted(30, "fog", 1), before=[cell(bits(35))])))
    (subject,) = record["subjects"]
    (condition,) = subject["conditions"]
    every = [
        record,
        condition,
        condition["robust"],
        condition["worst_class"],
        condition["compared"][0],
        record["rows"][0],
    ]
    names = {name for each in every for name in each}
    assert len(names) > 50
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_every_figure_names_rows_that_are_there(tmp_path: Path) -> None:
    made = [cell(bits(30)), cell(bits(20), threat="l2:1"), corrupted(30, "fog", 1), cell(None, attack="square")]
    record = json.loads(json_text(assessed(tmp_path, *made, before=[cell(bits(35))])))
    keys = {row["key"] for row in record["rows"]}
    assert keys == {row.key for row, _ in made}
    figures = [each for each in objects(record) if {"value", "low", "high"} <= each.keys()]
    assert len(figures) > 10
    assert all(each["rows"] and {*each["rows"]} <= keys for each in figures)
    before = {row["key"] for row in record["baseline"]["rows"]}
    changes = [each for each in objects(record) if "rows_before" in each]
    assert changes and all({*each["rows_before"]} <= before and {*each["rows"]} <= keys for each in changes)


def test_the_same_rows_give_the_same_bytes_packed_or_not(tmp_path: Path) -> None:
    made = [cell(bits(30)), cell(bits(20), attack="square", access="scores"), corrupted(30, "fog", 1)]
    stored(tmp_path / "a", *made)
    stored(tmp_path / "b", *reversed(made))
    pack(tmp_path / "b")
    found = [Results.read([tmp_path / name]) for name in "ab"]
    found.append(replace(found[0], rows=found[0].rows[::-1]))
    assert len({json_text(assess(results, "title")) for results in found}) == 1


def test_its_identification_is_of_all_that_it_is_made_of(tmp_path: Path) -> None:
    one, two = cell(bits(30)), cell(bits(29))
    plain = assessed(tmp_path / "a", one)
    others = [
        assessed(tmp_path / "b", two),  # the same key, another result
        assessed(tmp_path / "c", one, declared=0.5),
        assessed(tmp_path / "d", one, before=[one]),
        assessed(tmp_path / "e", one, groups={"a": ["cat"]}),
    ]
    assert one[0].key == two[0].key
    assert len({plain.identification, *(each.identification for each in others)}) == 5
    assert plain.rows_digest == others[1].rows_digest != others[0].rows_digest
    audited(tmp_path / "f", one, Status.SOUND)
    assert assess(Results.read([tmp_path / "f"]), "title").rows_digest != plain.rows_digest


def test_dates_and_machines_are_those_of_the_rows(tmp_path: Path) -> None:
    early = cell(bits(30), created="2025-12-31T23:59:59+00:00")
    late = cell(bits(30), attack="square", access="scores")
    late[0]["environment"] = {"device": "another"}
    found = assessed(tmp_path, early, late)
    assert (found.first, found.last) == ("2025-12-31T23:59:59+00:00", "2026-01-02T03:04:05+00:00")
    assert [(machine.environment["device"], machine.rows) for machine in found.machines] == [
        ("a CPU", 1),
        ("another", 1),
    ]
    placed = {row.key: found.machines[row.machine].environment["device"] for row in found.rows}
    assert placed == {early[0].key: "a CPU", late[0].key: "another"}


def test_models_of_one_name_are_two_and_a_model_on_two_data_sets_is_two(tmp_path: Path) -> None:
    made = [cell(bits(30)), cell(bits(20), weights_digest="v" * 64), cell(bits(10), data="mnist")]
    subjects = assessed(tmp_path, *made).subjects
    assert [(each.data, each.weights_digest) for each in subjects] == [
        ("cifar10", "v" * 64),
        ("cifar10", "w" * 64),
        ("mnist", "w" * 64),
    ]
    assert subjects[0].defense != subjects[1].defense
    robust = [each.conditions[0].robust for each in subjects]
    assert [figure.value if figure else None for figure in robust] == [0.5, 0.75, 0.25]


def test_the_map_sends_a_filled_field_to_a_place_and_says_nothing_of_the_rest(tmp_path: Path) -> None:
    whole = assessed(tmp_path, cell(bits(30)), cell(bits(20), attack="square", access="scores"), declared=0.1)
    by_clause = {(each.framework.partition(" (")[0], each.clause, each.field): each for each in whole.requirements}
    attacks = by_clause["EU AI Act, Regulation", "Article 15(5)", "attacks"]
    assert attacks.value == "2 (pgd, square); the least that one of them left: 50.0 %" and attacks.anchor == "m1-c1"
    white, black, blind = (by_clause["NIST AI 100-2 E2025", f"evasion, {how}", field].value for how, field in EVASION)
    assert white == "1 (pgd); the least that one of them left: 75.0 %"
    assert black == "1 (square); the least that one of them left: 50.0 %"
    assert blind is None
    declared = by_clause["EU AI Act, Regulation", "Article 15(3)", "declared level"]
    assert declared.value == "10.0 %: the interval's lower side reaches it (1)"
    assert all(each.value is None for each in whole.requirements if each.anchor is None)
    said = " ".join(f"{each.requirement} {each.field} {each.value}" for each in whole.requirements).lower()
    assert not any(word in said for word in ("complies", "compliant", "conforms", "certif", "fulfil", "passed"))
