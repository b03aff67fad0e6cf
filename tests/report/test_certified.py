"""What is certain stands beside what was found, and an attack that broke it is said to contradict it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.core.errors import StoreError
from robustbench_local.metrics.rates import wilson
from robustbench_local.report import export, render
from robustbench_local.report.assessment import assess
from robustbench_local.report.assessment_page import page as assessment_page
from robustbench_local.report.compare import compare
from robustbench_local.report.headline import headline
from robustbench_local.report.metrics import write_metrics
from robustbench_local.report.page import page
from robustbench_local.report.results import Results
from robustbench_local.report.side_by_side import SideBySide
from robustbench_local.report.table import Table
from robustbench_local.report.words import verdict
from robustbench_local.report.write import write_report
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row, certify, stored

N = 20
BALL = "linf:8/255"


def bits(kept: int) -> list[int]:
    return [1] * kept + [0] * (N - kept)


def attacked(folder: Path, *settings: dict[str, Any]) -> Store:
    made = [a_row(each.pop("robust"), **({"ids": f"0:{N}"} | each)) for each in settings or ({"robust": bits(16)},)]
    return stored(folder, *made)


def promised(store: Store, kept: int | None, **about: Any) -> Any:
    return certify(store, None if kept is None else bits(kept), **({"ids": f"0:{N}"} | about))


def table_of(folder: Path) -> Table:
    (table,) = Results.read([folder]).tables()
    return table


def test_the_column_stands_between_the_worst_case_and_the_rank(tmp_path: Path) -> None:
    store = attacked(tmp_path, {"robust": bits(16)}, {"robust": bits(12), "model": "other", "weights_digest": "o" * 64})
    promised(store, 14)
    table = table_of(tmp_path)
    assert render.last(table) == ["worst case", "certified", "rank"]
    low, high = wilson(14, N)
    assert f"| 70.0 ({100 * low:.1f}-{100 * high:.1f}) |" in render.markdown([table])
    other = next(line for line in render.markdown([table]).splitlines() if line.startswith("| other"))
    assert other.split("|")[-3].strip() == "–"
    lines = list(csv.DictReader(io.StringIO(render.csv_text([table]))))
    assert {(line["model"], line["certified"]) for line in lines} == {("preact_small", "0.7"), ("other", "")}
    said = json.loads(export.json_text([table]))["tables"][0]["lines"]
    assert said[0]["certified"]["value"] == 0.7 and said[0]["certified"]["confidence"] is None
    assert said[1]["certified"] is None


def test_nothing_of_it_is_anywhere_where_nobody_asked(tmp_path: Path) -> None:
    store = attacked(tmp_path)
    promised(store, 14, threat="linf:4/255")  # of another ball
    promised(store, 14, ids="1:21")  # of other images
    promised(store, 14, weights_digest="v" * 64)  # of another model
    table = table_of(tmp_path)
    assert not table.certifies and "certified" not in render.markdown([table]) + render.csv_text([table]).lower()
    assert "certified" not in export.json_text([table])


def test_an_image_is_certified_that_any_method_certifies_and_only_the_latest_version_counts(tmp_path: Path) -> None:
    store = attacked(tmp_path)
    certify(store, [0] * 4 + [1] * 4 + [0] * 12, ids=f"0:{N}", certificate="ibp")
    promised(store, 2)
    promised(store, 16, certificate="ibp", certificate_version=0)  # promised too much, perhaps
    (line,) = table_of(tmp_path).lines
    assert line.certified is not None and line.certified.rate is not None
    assert line.certified.rate.value == 6 / N and not line.contradictions and len(line.certified.rows) == 2


def test_where_no_bound_is_known_there_is_a_dash_and_why(tmp_path: Path) -> None:
    store = attacked(tmp_path)
    promised(store, None, why='layer "3" (Sigmoid)')
    table = table_of(tmp_path)
    said = 'preact_small / none: not certified: no bound: layer "3" (Sigmoid)'
    assert said in table.notes and table.lines[0].certified is not None and table.lines[0].certified.rate is None
    assert "not certified" in render.markdown([table]) and '"missing": "no bound: layer' in export.json_text([table])
    assert "no bound: layer" in page([table], Results.read([tmp_path]), [], "title")


def test_sampling_is_marked_and_is_no_proof(tmp_path: Path) -> None:
    store = attacked(tmp_path, {"robust": [[bit] * 3 for bit in bits(10)], "threat": "l2:0.5"})
    promised(store, 12, threat="l2:0.5", confidence=0.999)
    table = table_of(tmp_path)
    low, high = wilson(12, N)
    assert f"60.0\\* ({100 * low:.1f}-{100 * high:.1f})" in render.markdown([table])
    assert any("by sampling, 10,000 draws an image, with a probability of 99.9 % each" in note for note in table.notes)
    assert not table.lines[0].contradictions  # two images that are certified fell: that is what a probability is
    found = assess(Results.read([tmp_path]), "title")
    assert found.subjects[0].conditions[0].verified is None
    promised(store, 4, threat="l2:0.5")
    assert "20.0 (" in render.markdown([table_of(tmp_path)])  # a proof comes before it


def test_the_bracket_in_words(tmp_path: Path) -> None:
    store = attacked(tmp_path)
    promised(store, 14)
    table = table_of(tmp_path)
    least = "and at least 70.0 % to any attack whatever, by proof"
    shown = page([table], Results.read([tmp_path]), [], "title")
    assert headline(table).sentence.endswith("16 of 20 CIFAR-10 images, at most, and at least 14, by proof.")
    assert headline(table).sentence in shown
    for said in (verdict(table.lines[0], table), shown):
        assert least in said.replace("\N{NO-BREAK SPACE}", " ")
    assert 'class="bar certain"' in shown


@pytest.mark.parametrize("threat", [BALL, "linf:4/255", "l2:4/255", "l1:8/255"])
def test_an_attack_within_the_ball_that_breaks_what_is_certified_contradicts_it(tmp_path: Path, threat: str) -> None:
    store = attacked(tmp_path, {"robust": bits(16)}, {"robust": bits(10), "threat": threat, "attack": "apgd"})
    row = promised(store, 12)
    results = Results.read([tmp_path])
    (found,) = results.contradictions
    assert found.ids == (10, 11) and found.bounds == (0.5, 0.5)
    said = str(found)
    for part in ("preact_small / none", "apgd", threat, "crown", BALL, "10 (margin at least 0.5)", row.key, "report"):
        assert part in said
    table = next(table for table in results.tables() if table.threat == threat)
    assert f"CONTRADICTION: {said}" in table.notes and said in assessment_notes(results)
    mine = table.lines[0].certified
    assert mine is None or (mine.rate is None and "contradicts" in mine.missing)


def assessment_notes(results: Results) -> list[str]:
    return [each.what for each in assess(results, "title").deviations if each.kind == "contradiction"]


@pytest.mark.parametrize("threat", ["linf:16/255", "l0:1", "l2:16/255"])
def test_a_larger_ball_contradicts_nothing(tmp_path: Path, threat: str) -> None:
    store = attacked(tmp_path, {"robust": bits(16)}, {"robust": bits(10), "threat": threat, "attack": "apgd"})
    promised(store, 12)
    assert not Results.read([tmp_path]).contradictions


def test_the_assessment_has_the_lower_bound_with_its_row(tmp_path: Path) -> None:
    store = attacked(tmp_path)
    row = promised(store, 14)
    found = assess(Results.read([tmp_path]), "title")
    (condition,) = found.subjects[0].conditions
    assert condition.verified is not None and condition.verified.value == 0.7
    assert condition.verified.rows == (row.key,) and row.key in {record.key for record in found.rows}
    said = {each.requirement: each.value for each in found.requirements if each.field == "verified lower bound"}
    assert said and all(value and "70.0" in value for value in said.values())
    text = assessment_page(found)
    assert f'id="row-{row.key}"' in text and "certified 70.0" in text and "certificate: crown" in text


def test_frames_and_metrics_have_the_share_and_a_folder_of_certificates_alone_has_no_table(tmp_path: Path) -> None:
    row, made = a_row(bits(16), ids=f"0:{N}")
    halves = {"cat": made[::2], "dog": made[1::2]}
    row["results"]["per_class"] = [
        {"class": name, "n": 10, "clean": 1.0, "robust": float(half.mean())} for name, half in halves.items()
    ]
    store = stored(tmp_path / "one", (row, made))
    promised(store, 14)
    frame = Results.read([tmp_path / "one"]).to_frame()
    assert len(frame) == 1 and frame["certified"].tolist() == [0.7]
    assert [frame["certified_low"][0], frame["certified_high"][0]] == pytest.approx(wilson(14, N))
    ranks = next(sheet for sheet in write_metrics(tmp_path / "one") if "certified" in sheet.frame)
    assert ranks.frame["certified"].tolist() == [0.7]
    promised(Store(tmp_path / "alone"), 14)
    with pytest.raises(StoreError, match="no row"):
        Results.read([tmp_path / "alone"])


def test_the_report_is_a_pure_function_of_the_rows(tmp_path: Path) -> None:
    store = attacked(tmp_path)
    promised(store, 14)
    texts = []
    for _ in range(2):
        write_report(Results.read([tmp_path]), tmp_path)
        texts.append([(tmp_path / name).read_bytes() for name in ("table.md", "table.csv", "table.tex", "index.html")])
    assert texts[0] == texts[1] and b"certified" in texts[0][2]


def test_compare_says_what_is_certified_no_longer(tmp_path: Path) -> None:
    stores = [attacked(tmp_path / name) for name in ("before", "after")]
    keys = [promised(store, kept).key for store, kept in zip(stores, (14, 5), strict=True)]
    before, after = (Results.read([tmp_path / name]) for name in ("before", "after"))
    (found,) = (change for change in compare(before, after) if change.part == "certified")
    assert (found.before, found.after, found.what) == (0.7, 0.25, "worse")
    assert found.pair is not None and (found.pair.only_first, found.pair.only_second) == (9, 0)
    assert (*found.rows_before, *found.rows_after) == tuple(keys)
    compared = assess(after, "title", before=before).subjects[0].conditions[0].compared
    assert compared is not None and [each.what for each in compared if each.part == "certified"] == ["worse"]


def test_compare_knows_a_renamed_model_by_its_certificate_too(tmp_path: Path) -> None:
    stores = [attacked(tmp_path / "before"), attacked(tmp_path / "after", {"robust": bits(16), "defense": "plain"})]
    promised(stores[0], 14)
    promised(stores[1], 14, defense="plain")
    before, after = (Results.read([tmp_path / name]) for name in ("before", "after"))
    changes = compare(before, after, names={"none": "plain"})
    assert [change.what for change in changes if change.part == "certified"] == ["same"]


def test_side_by_side_says_the_lower_bound_too(tmp_path: Path) -> None:
    store = attacked(tmp_path)
    together = SideBySide()
    together.add("one", [table_of(tmp_path)], [])
    assert "by proof" not in together.json()
    promised(store, 14)
    together.add("one", [table_of(tmp_path)], [])
    assert "over 1 attack, and at least 70.0" in together.json() and "by proof" in together.json()
