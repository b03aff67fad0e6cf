from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import Audit, Audits, RowFinding
from robustbench_local.metrics.rates import wilson
from robustbench_local.report import render
from robustbench_local.report.results import Results
from robustbench_local.report.table import Rate, Table, robust_tables
from robustbench_local.report.words import answer
from robustbench_local.report.write import print_tables, write_report
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row, stored


def tables(*made: tuple[Row, np.ndarray]) -> list[Table]:
    shares = {row["key"]: bits if bits.ndim == 1 else bits.mean(1) for row, bits in made}
    return robust_tables([row for row, _ in made], lambda row: shares[row["key"]].astype(np.float64))


def text(found: list[Table]) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    render.show(found, console)
    return console.export_text()


def test_worst_case_is_a_minimum_per_image_not_of_means() -> None:
    (table,) = tables(a_row([1, 1, 0, 0], attack="fgsm"), a_row([0, 1, 1, 0], attack="pgd"))
    (line,) = table.lines
    assert [rate.value for rate in line.robust if rate] == [0.5, 0.5]
    assert line.worst[0] is not None
    assert line.worst[0].value == 0.25
    assert (line.worst[0].low, line.worst[0].high) == wilson(1, 4)
    assert table.worst == ("worst case",)


@pytest.mark.parametrize("status", [Status.SUSPICIOUS, Status.BROKEN])
def test_what_the_audit_calls_broken_has_no_rank_stands_last_and_makes_no_headline(status: Status) -> None:
    made = [a_row(bits, defense=name) for name, bits in {"a": [1] * 40, "b": [1] * 9 + [0] * 31, "c": [0] * 40}.items()]
    rows = [row for row, _ in made]
    keys = {row["definition"]["defense"]: row["key"] for row in rows}
    finding = RowFinding(Finding("a stronger attack", status, "it succeeds"), rows[0]["definition"]["threat"], True)
    shown = {row["key"]: bits.astype(np.float64) for row, bits in made}
    (table,) = robust_tables(rows, lambda row: shown[row["key"]], Audits([Audit((keys["a"],), (finding,), ())]))
    broken = status is Status.BROKEN
    assert [line.defense.name for line in table.lines] == (["b", "c", "a"] if broken else ["a", "b", "c"])
    ranks = {line.defense.name: str(line.rank) for line in table.lines}
    assert ranks == ({"b": "1", "c": "2", "a": "None"} if broken else {"a": "1", "b": "2", "c": "3"})
    assert answer(table).startswith(f"Most robust here is {'b' if broken else 'a'}:")
    assert (render.UNRANKED in render.markdown([table])) is broken and render.EMPTY not in render.markdown([table])


def test_tables_of_most_images_come_first() -> None:
    made = [a_row([1] * n, ids=f"0:{n}", attack=attack) for n, attack in ((4, "one_pixel"), (40, "pgd"), (9, "fgsm"))]
    assert [table.images for table in tables(*made)] == [40, 9, 4]


def test_there_is_no_headline_where_all_is_broken() -> None:
    row, bits = a_row([1, 1, 0, 1])
    finding = RowFinding(Finding("logits", Status.BROKEN, "probabilities"), row["definition"]["threat"])
    (table,) = robust_tables([row], lambda _: bits.astype(np.float64), Audits([Audit((row["key"],), (finding,), ())]))
    assert answer(table).startswith("No headline: the audit")


@pytest.mark.parametrize("failed", [True, False])
def test_failed_or_missing_cell_is_a_dash_and_takes_the_worst_case_with_it(failed: bool) -> None:
    made = [
        a_row([1, 1, 1, 0], attack="fgsm"),
        a_row([1, 0, 0, 0], attack="pgd"),
        a_row([1, 1, 1, 1], attack="fgsm", defense="better"),
    ]
    if failed:
        made.append(a_row(None, attack="pgd", defense="better"))
    (table,) = tables(*made)
    complete, incomplete = table.lines  # the incomplete line is not ranked first, however well it looks
    assert incomplete.defense.name == "better"
    assert incomplete.robust[1] is None
    assert incomplete.worst == (None,)
    assert complete.worst[0] is not None
    cells = [cell.strip() for cell in render.markdown([table]).split("better")[1].splitlines()[0].split("|")[1:-1]]
    assert cells == ["100.0 (51.0-100)", "100.0 (51.0-100)", "–", "–"]
    (note,) = table.notes
    expected = "failed, ModelError: logits are NaN" if failed else "not run"
    assert note == f"preact_small / better, pgd: {expected}"
    assert expected in text([table])


def test_lines_are_ranked_by_worst_case() -> None:
    (table,) = tables(*(a_row(bits, defense=name) for name, bits in [("a", [0, 0, 0, 1]), ("b", [1, 1, 0, 1])]))
    assert [line.defense.name for line in table.lines] == ["b", "a"]


def test_ranks_span_what_the_images_cannot_tell_apart() -> None:
    bits = {"a": [1] * 90 + [0] * 10, "b": [1] * 88 + [0] * 12, "c": [1] * 20 + [0] * 80}
    (table,) = tables(*(a_row(each, defense=name) for name, each in bits.items()))
    assert [(line.defense.name, str(line.rank)) for line in table.lines] == [("a", "1-2"), ("b", "1-2"), ("c", "3")]
    assert "| rank |" in render.markdown([table])
    assert "1-2" in text([table])


def test_a_line_without_worst_case_has_no_rank_and_takes_none() -> None:
    (table,) = tables(
        a_row([1] * 90 + [0] * 10, defense="a"),
        a_row([1] * 5 + [0] * 95, defense="b"),
        a_row([1] * 100, defense="c", attack="fgsm"),
        a_row([1] * 90 + [0] * 10, defense="a", attack="fgsm"),
        a_row([1] * 100, defense="b", attack="fgsm"),
    )
    assert [(line.defense.name, str(line.rank)) for line in table.lines] == [("a", "1"), ("b", "2"), ("c", "None")]


def test_a_union_over_norms_is_a_column_of_its_own_and_a_minimum_per_image() -> None:
    found = tables(
        a_row([1, 1, 0, 1]),
        a_row([1, 1, 1, 1], threat="linf:4/255"),
        a_row([0, 1, 1, 1], threat="l2:0.5"),
        a_row([0, 0, 0, 0], threat="none"),
        a_row([1, 1, 1, 1], defense="half"),
        a_row([1, 1, 1, 1], defense="half", threat="linf:4/255"),
    )
    balls = [table for table in found if table.threat != "none"]
    assert {table.union for table in balls} == {("union of l2:0.5, linf:8/255",)}
    for table in balls:
        for line in table.lines:
            if line.defense.name == "none":
                assert line.union == (Rate(0.5, *wilson(2, 4)),)
            else:
                assert line.union == (None,)  # never attacked in L2
    assert [table.union for table in found if table.threat == "none"] == [()]
    assert "| union of l2:0.5, linf:8/255 |" in render.markdown(balls)
    shown = text(balls)
    assert "union" in shown and max(map(len, shown.splitlines())) <= 100
    records = [line for line in csv.DictReader(io.StringIO(render.csv_text(balls))) if "union" in line["attack"]]
    assert {line["robust"] for line in records} == {"0.5", ""}


def test_one_norm_makes_no_union() -> None:
    found = tables(a_row([1, 1, 0, 1]), a_row([1, 1, 1, 1], threat="linf:4/255"))
    assert [table.union for table in found] == [(), ()]


def test_threats_data_and_image_sets_are_never_mixed() -> None:
    found = tables(
        a_row([1, 0, 0, 0]),
        a_row([1, 0, 0, 0], threat="l2:0.5"),
        a_row([1, 0, 0, 0], data="mnist"),
        a_row([1, 0, 0, 0], ids="4:8"),
        a_row([1, 0, 0, 0], targets="random"),
    )
    assert len(found) == 5
    assert len({table.title for table in found}) == 4  # the two image sets have the same size


def test_random_models_have_a_table_of_their_own_and_their_error_cells_follow_them() -> None:
    fixed, random = tables(
        a_row([1, 1, 0, 0]),
        a_row([[1, 0], [1, 1], [0, 0], [0, 1]], defense="noise"),
        a_row([[0, 1], [0, 0], [0, 0], [1, 1]], defense="noise", attack="fgsm"),
        a_row(None, defense="noise", attack="square"),
        a_row([[0, 1], [0, 1], [1, 1], [0, 0]], defense="dropout"),
        a_row([[0, 1], [0, 0], [0, 1], [0, 0]], defense="dropout", attack="fgsm"),
        a_row([[1, 1], [1, 1], [0, 0], [0, 0]], defense="dropout", attack="square"),
    )
    assert [line.defense.name for line in fixed.lines] == ["none"]
    assert not fixed.stochastic
    assert "models that draw random numbers" in random.title
    dropout, noise = random.lines
    assert noise.worst == (None,)
    assert dropout.worst[0] is not None
    assert dropout.worst[0].value == pytest.approx((0.5 + 0 + 0 + 0) / 4)  # of the shares, per image


def test_the_worst_of_ten_draws_is_a_column_of_random_models_alone() -> None:
    def draws(*right: int, **about: Any) -> tuple[Row, np.ndarray]:
        return a_row((np.arange(20) < np.array(right)[:, None]).tolist(), **about)

    fixed, random = tables(
        a_row([1, 1, 0]),
        draws(20, 20, 19, defense="noise"),
        draws(20, 19, 20, defense="noise", attack="fgsm"),
        draws(20, 20, 20, defense="dropout"),
        a_row(None, defense="dropout", attack="fgsm"),
        a_row([[1], [1], [1]], defense="vote", eot=1, draws=1),
        a_row([[1], [1], [1]], defense="vote", eot=1, draws=1, attack="fgsm"),
    )
    assert fixed.beside == () and random.beside == ("worst of 10 draws",)
    found = {line.defense.name: line.beside[0] for line in random.lines}
    assert found["noise"] and found["noise"].value == pytest.approx((1 + 0.5 + 0.5) / 3)  # per image, over both attacks
    assert found["dropout"] is found["vote"] is None  # an attack is missing; one draw says nothing
    assert render.last(random)[-1] == "worst of 10 draws" and render.rates(random.lines[0], random)[-1] is None
    assert render.RESUBMITTED in render.legend(random) and render.RESUBMITTED not in render.legend(fixed)
    (few,) = tables(a_row([[1], [1], [1]], defense="vote", eot=1, draws=1))
    assert few.beside == ()


def test_several_seeds_are_summed_up_by_the_worst_of_them_image_by_image() -> None:
    (table,) = tables(
        a_row([1, 1, 0, 0]),
        a_row([0, 1, 1, 0], seed=1),
        a_row([1, 1, 1, 1], seed=2),
        a_row([1, 1, 1, 1], attack="fgsm"),
        a_row(None, attack="fgsm", seed=1),
    )
    (note,) = [note for note in table.notes if "seeds" in note]
    assert note == "preact_small / none, pgd, seeds 0, 1, 2: 25.0 % in the worst of them, image by image; " + (
        "50.0, 50.0, 100.0 % each"
    )
    assert not any("seeds" in note for note in tables(a_row([1, 0]), a_row([1, 1], attack="fgsm"))[0].notes)


def test_random_models_that_were_asked_more_often_share_a_column_and_say_so() -> None:
    noisy = a_row([[1, 1], [1, 0]], defense="noisy")
    vote = a_row([[1], [1]], defense="vote", eot=1, draws=1)
    (table,) = tables(noisy, vote)
    assert list(map(str, table.attacks)) == ["pgd"]
    assert [str(line.defense) for line in table.lines] == ["vote (eot=1, draws=1)", "noisy (eot=20, draws=20)"]
    assert all(line.worst[-1] for line in table.lines)
    (table,) = tables(noisy, a_row([[1, 1], [1, 1]], defense="other"))
    assert [str(line.defense) for line in table.lines] == ["other", "noisy"]


def test_one_model_asked_more_and_less_often_keeps_both_columns() -> None:
    (table,) = tables(a_row([[1, 1], [1, 0]]), a_row([[1, 1], [1, 1]], eot=1))
    assert list(map(str, table.attacks)) == ["pgd (eot=1)", "pgd (eot=20)"]
    assert table.lines[0].worst[-1] and table.lines[0].worst[-1].value == 0.75


def test_worst_case_of_an_access_level_counts_the_levels_below_and_no_level_above() -> None:
    (table,) = tables(
        a_row([0, 1, 1, 1], attack="noise", access="none"),
        a_row([1, 0, 1, 1], attack="square", access="scores"),
        a_row([1, 1, 0, 1], attack="pgd", access="gradients"),
    )
    assert [label.name for label in table.attacks] == ["noise", "square", "pgd"]
    assert table.worst == ("worst case, scores", "worst case, gradients")
    assert [rate.value for rate in table.lines[0].worst if rate] == [0.5, 0.25]


def test_labels_name_what_differs_and_what_is_unusual() -> None:
    (table,) = tables(
        a_row([1, 1, 1, 1], attack_settings={"steps": 40, "loss": "ce", "restarts": 1}),
        a_row([1, 1, 1, 1], attack_settings={"steps": 20, "loss": "margin", "restarts": 1}),
        a_row([1, 1, 1, 1], attack="fgsm", precision="fast"),
        a_row([1, 1, 1, 1], attack="bim", attack_settings={"steps": 10}),
    )
    assert {str(label) for label in table.attacks} == {
        "pgd (steps=40, loss=ce)",
        "pgd (steps=20, loss=margin)",
        "fgsm (precision=fast)",
        "bim",
    }


def test_a_defense_without_a_naive_cell_is_named_like_those_that_have_one() -> None:
    weak, strong = {"defense": "noise", "defense_settings": {"amplitude": 1}}, {"amplitude": 2}
    made = [a_row([1, 1, 0, 0], **weak), a_row([1, 0, 0, 0], **weak | {"defense_settings": strong})]
    made[0][0]["definition"]["adaptive"] = False
    (table,) = tables(*made)
    assert {str(line.defense) for line in table.lines} == {"noise (amplitude=1)", "noise (amplitude=2)"}


def test_same_names_with_other_weights_stay_apart() -> None:
    (table,) = tables(a_row([1, 1, 0, 0]), a_row([1, 1, 1, 0], weights_digest="v" * 64))
    assert [str(line.defense) for line in table.lines] == [
        "none (weights_digest=vvvvvvvv)",
        "none (weights_digest=wwwwwwww)",
    ]


def test_other_weights_are_not_shown_where_settings_tell_already() -> None:
    made = {"defense": "noise_fusion", "weights_digest": "v" * 64}
    (table,) = tables(
        a_row([1, 1, 0, 0], defense="noise_fusion", defense_settings={"kind": "gaussian"}),
        a_row([1, 1, 1, 0], **made, defense_settings={"kind": "uniform"}),
        a_row([1, 1, 1, 1], **made, defense_settings={"kind": "laplace"}),
        a_row([0, 1, 1, 1], **made | {"weights_digest": "u" * 64}, defense_settings={"kind": "laplace"}),
    )
    assert {str(line.defense) for line in table.lines} == {
        "noise_fusion (kind=gaussian)",
        "noise_fusion (kind=uniform)",
        "noise_fusion (kind=laplace, weights_digest=uuuuuuuu)",
        "noise_fusion (kind=laplace, weights_digest=vvvvvvvv)",
    }


def test_flags_are_shown() -> None:
    (table,) = tables(a_row([1, 1, 0, 0], flags=["probabilities"]), a_row([1, 1, 0, 0], attack="fgsm"))
    assert table.notes == ("preact_small / none, pgd: probabilities",)
    assert "probabilities" in text([table])
    assert "- preact_small / none, pgd: probabilities" in render.markdown([table])


def test_terminal_table_of_a_usual_grid_fits_a_hundred_columns() -> None:
    attacks: list[dict[str, Any]] = [
        {"attack": "noise", "access": "none"},
        {"attack": "fgsm"},
        {"attack": "bim"},
        {"attack_settings": {"steps": 40, "restarts": 5, "loss": "ce"}},
        {"attack_settings": {"steps": 20, "restarts": 1, "loss": "multi_targeted"}},
    ]
    defenses = ["none", "adversarial_training"]
    shown = text(tables(*(a_row([1, 0, 0, 1], defense=d, **a) for d in defenses for a in attacks)))
    assert max(map(len, shown.splitlines())) <= 100
    assert "…" not in shown
    for word in ("adversarial_training", "pgd 2: steps=20, restarts=1, loss=multi_targeted", "worst", "15.0-85.0"):
        assert word in shown


@pytest.mark.parametrize("attacks", range(5, 14))
def test_a_wide_table_goes_on_in_another_block_and_loses_nothing(attacks: int) -> None:
    made = [a_row([1, 0, 0, 1], defense="adversarial_training", attack=f"long_attack_{i:02}") for i in range(attacks)]
    shown = text(tables(*made))
    assert max(map(len, shown.splitlines())) <= 100
    assert "…" not in shown
    assert shown.count("15.0-85.0") == attacks + 1
    for word in [*(f"long_attack_{i:02}" for i in range(attacks)), "preact_small", "adversarial_training", "worst"]:
        assert word in shown


def test_csv_has_one_line_per_cell_and_worst_case() -> None:
    (table,) = tables(
        a_row([1, 1, 0, 0], attack="fgsm"),
        a_row(None, attack="pgd"),
        a_row([1, 1, 0, 0], attack="fgsm", defense="b"),
        a_row([1, 0, 0, 0], attack="pgd", defense="b"),
    )
    lines = list(csv.DictReader(io.StringIO(render.csv_text([table]))))
    found = {(line["defense"], line["attack"]): line for line in lines}
    assert len(lines) == len(found) == 6
    assert found["b", "worst case"]["robust"] == "0.25"
    assert found["b", "worst case"]["clean"] == "1.0"
    assert found["none", "worst case"]["robust"] == ""
    assert found["none", "worst case"]["status"] == "missing"
    assert found["none", "pgd"]["robust"] == ""
    assert found["none", "pgd"]["status"] == "error"
    assert found["b", "fgsm"]["forwards_mean"] == "11.0"


def test_tables_are_made_from_the_stored_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [
        a_row([1, 1, 0, 0], attack="fgsm"),
        a_row([0, 1, 1, 0]),
        a_row([[1, 0], [1, 1], [0, 0], [0, 1]], defense="noise"),
    ]
    store = stored(tmp_path, *made)
    results = Results.of(store.rows(), store)
    found = write_report(results, tmp_path)
    assert [table.lines[0].worst[0].value for table in found if table.lines[0].worst[0]] == [0.25, 0.5]
    assert (tmp_path / "table.md").read_text() == render.markdown(robust_tables(results.rows, results.robust_shares))
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 3 + 2 + 1  # the worst of ten draws
    print_tables(results)
    assert "models that draw random numbers" in capsys.readouterr().out


def test_no_rows_no_tables(tmp_path: Path) -> None:
    assert write_report(Results.of([], Store(tmp_path)), tmp_path) == []
