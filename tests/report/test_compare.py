"""What changed between two results folders: attack against attack, and what else there is to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import Audit, Retry, RowFinding, keep
from robustbench_local.cli.main import main
from robustbench_local.core.errors import StoreError
from robustbench_local.metrics.paired import mcnemar, noticeable
from robustbench_local.report.compare import Change, compare
from robustbench_local.report.matching import CHOSEN, IMAGES, MADE
from robustbench_local.report.results import Results
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store
from tests.helpers.rows import OTHER, a_row, stored

N = 40


def bits(k: int, n: int = N) -> list[int]:
    return [1] * k + [0] * (n - k)


def cell(k: int, **about: Any) -> tuple[Row, np.ndarray]:
    return a_row(bits(k), **({"ids": f"0:{N}"} | about))


Made = tuple[Row, np.ndarray]


def changes(
    folder: Path, before: list[Made], after: list[Made], part: str = "attack", **options: Any
) -> dict[str, Change]:
    for name, made in (("a", before), ("b", after)):
        stored(folder / name, *made)
    found = compare(Results.read([folder / "a"]), Results.read([folder / "b"]), **options)
    return {change.name.rpartition(", ")[2]: change for change in found if change.part == part}


def test_same_images_are_paired_and_the_p_value_is_mcnemars(tmp_path: Path) -> None:
    found = changes(tmp_path, [cell(30)], [cell(18, weights_digest="v" * 64)])["pgd"]
    assert (found.what, found.before, found.after) == ("worse", 0.75, 0.45)
    assert found.pair is not None
    assert (found.pair.n, found.pair.only_first, found.pair.only_second) == (N, 12, 0)
    assert found.p == pytest.approx(2 * stats.binomtest(12, 12).pvalue)  # Holm: beside clean accuracy
    assert found.worse and found.differs == ("other weights_digest",)
    back = changes(tmp_path / "back", [cell(18)], [cell(30)])["pgd"]
    assert (back.what, back.worse) == ("better", False)


def test_a_difference_that_luck_explains_is_called_so(tmp_path: Path) -> None:
    found = changes(tmp_path, [cell(30)], [cell(27)])["pgd"]
    assert (found.what, found.worse) == ("within luck", False)
    assert changes(tmp_path / "same", [cell(30)], [cell(30)])["pgd"].what == "same"


def test_many_cells_are_held_to_a_stricter_level(tmp_path: Path) -> None:
    """7 of 7 lost has p = 0.016: worse beside clean accuracy, luck among eight cells, their worst case and that."""
    names = [f"a{k}" for k in range(8)]
    before = [cell(30, attack=name) for name in names]
    after = [cell(23 if name == "a0" else 30, attack=name) for name in names]
    assert changes(tmp_path / "one", before[:1], after[:1])["a0"].what == "worse"
    many = changes(tmp_path / "many", before, after)
    assert many["a0"].what == "within luck"
    assert many["a0"].p == pytest.approx(10 * stats.binomtest(7, 7).pvalue)


def test_only_shared_images_are_compared(tmp_path: Path) -> None:
    longer = a_row(bits(30) + [0] * 20, ids="0:60", data_digest="e" * 64)
    found = changes(tmp_path, [longer], [cell(30)])["pgd"]
    assert found.pair is not None
    assert (found.pair.n, found.what, found.before, found.images) == (N, "same", 0.75, (60, 40))


def test_other_data_is_not_compared(tmp_path: Path) -> None:
    found = changes(tmp_path, [cell(30)], [cell(30, data_digest="e" * 64)])["pgd"]
    assert (found.what, found.p, found.lost) == ("other data", None, True)


def test_a_cell_that_failed_or_is_gone_is_lost_and_a_new_one_is_not(tmp_path: Path) -> None:
    found = changes(
        tmp_path,
        [cell(30), cell(30, attack="fgsm"), cell(30, attack="bim")],
        [cell(30), a_row(None, attack="fgsm", ids=f"0:{N}"), cell(30, attack="apgd")],
    )
    assert {name: change.what for name, change in found.items()} == {
        "pgd": "same",
        "fgsm": "failed after",
        "bim": "only before",
        "apgd": "only after",
    }
    assert {name for name, change in found.items() if change.lost} == {"fgsm", "bim"}
    assert not any(change.worse for change in found.values())


def test_other_settings_of_a_defense_meet_by_name_and_other_steps_of_an_attack_do_not(tmp_path: Path) -> None:
    found = changes(
        tmp_path,
        [cell(30, defense="jpeg", defense_settings={"quality": 75}), cell(30, attack_settings={"steps": 10})],
        [cell(30, defense="jpeg", defense_settings={"quality": 50}), cell(30, attack_settings={"steps": 40})],
    )
    assert {name: change.what for name, change in found.items()} == {
        "pgd": "same",
        "pgd (steps=10)": "only before",
        "pgd (steps=40)": "only after",
    }


def test_folders_with_nothing_in_common_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no cell in common"):
        changes(tmp_path, [cell(30)], [cell(30, data="mnist")])


def test_the_command_says_it_by_table_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "a", cell(30))
    stored(tmp_path / "b", cell(18))
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["compare", *folders]) == 1
    shown = capsys.readouterr().out
    for word in ("75.0", "45.0", "12", "worse", "Holm"):
        assert word in shown
    assert main(["compare", *reversed(folders)]) == 0
    assert main(["compare", *folders, "--alpha", "0.0001"]) == 0
    assert main(["compare", folders[0], str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize("key", [key for key in OTHER if key not in (*MADE, *IMAGES, *CHOSEN)])
def test_cells_that_differ_in_what_was_measured_never_meet(key: str, tmp_path: Path) -> None:
    """Naive is no adaptive, an attack under fog none without; nor may a key be overlooked that is new."""
    both, other = cell(30, attack="fgsm"), cell(5, **{key: OTHER[key]})
    stored(tmp_path / "a", cell(30), both)
    stored(tmp_path / "b", other, both)
    found = compare(Results.read([tmp_path / "a"]), Results.read([tmp_path / "b"]))
    cells = [change for change in found if change.part == "attack"]
    assert sorted(change.what for change in cells) == ["only after", "only before", "same"]
    assert len({change.name for change in cells}) == 3  # and their names tell them apart
    assert not any(change.worse for change in found)


@pytest.mark.parametrize("key", [*MADE, *IMAGES, *CHOSEN])
def test_what_was_made_differently_meets_and_is_said(key: str, tmp_path: Path) -> None:
    made = a_row(bits(30), **{"ids": f"0:{N}", key: OTHER[key]})
    (found,) = changes(tmp_path, [cell(30)], [made]).values()
    if key == "data_digest":
        assert found.what == "other data"
    else:
        assert found.what == "same"
        assert key in IMAGES or any(key in each for each in found.differs)


def audited(folder: Path, made: Made, asked: int, broken: Sequence[int]) -> None:
    """An audit beside a row: of the robust images the first `asked` were tried again, and these were broken."""
    row, _ = made
    retry = Retry("linf:8/255", "best", asked, tuple(broken), (row["key"],))
    finding = RowFinding(Finding("a stronger attack", Status.SUSPICIOUS, "it succeeds"), "linf:8/255")
    keep(Store(folder), "a.json", Audit((row["key"],), (finding,), (retry,)))


def both(folder: Path) -> list[Change]:
    """What differs between the results in a/ and b/."""
    return compare(Results.read([folder / "a"]), Results.read([folder / "b"]))


def test_rows_that_are_the_same_are_the_same_whatever_their_audits_found(tmp_path: Path) -> None:
    """The table took 12 of 30 off one of two identical runs: 75 against 45 %, p = 0.0005."""
    made = cell(30)
    stored(tmp_path / "a", made)
    stored(tmp_path / "b", made)
    audited(tmp_path / "b", made, 30, range(12))
    assert Results.read([tmp_path / "b"]).robust_shares(made[0]).sum() == 18
    found = compare(Results.read([tmp_path / "a"]), Results.read([tmp_path / "b"]))
    assert {change.part: change.what for change in found} == {
        "attack": "same",
        "clean": "same",
        "audit": "audited only after",
    }
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0


def test_audits_are_compared_on_the_images_that_both_asked_about(tmp_path: Path) -> None:
    """Before 0 .. 9 were asked about, after 0 .. 29: of the ten, 2 and 9 fell."""
    for name, asked, fell in (("a", 10, [0, 1]), ("b", 30, [*range(9), 15, 20, 25])):
        stored(tmp_path / name, cell(30))
        audited(tmp_path / name, cell(30), asked, fell)
    found = {change.part: change for change in both(tmp_path)}
    audit = found["audit"]
    assert audit.pair is not None
    assert (audit.pair.n, audit.images) == (10, (10, 30))
    assert audit.before == 0.8 and audit.after == pytest.approx(0.1)
    assert audit.p == pytest.approx(3 * stats.binomtest(7, 7).pvalue) and audit.what == "worse"
    assert found["attack"].what == "same"


def test_the_worst_case_is_per_image_over_the_attacks_that_both_have(tmp_path: Path) -> None:
    """Each attack alone loses too few to notice; together they lose 20, of images that both have."""

    def some(attack: str, fell: Sequence[int], **about: Any) -> Made:
        return a_row([int(i not in fell) for i in range(N)], attack=attack, ids=f"0:{N}", **about)

    before = [some("pgd", []), some("fgsm", []), some("bim", range(N)), some("apgd", range(N), adaptive=False)]
    after = [some("pgd", range(5)), some("fgsm", range(5, 10)), some("apgd", range(N), adaptive=False)]
    found = changes(tmp_path, before, after, "worst case")
    (worst,) = found.values()
    assert (worst.before, worst.after, worst.what) == (1.0, 0.75, "worse")
    assert "worst case of 2 attacks" in found
    assert changes(tmp_path, before, after)["pgd"].what == "within luck"


def test_clean_accuracy_has_a_line_of_its_own(tmp_path: Path) -> None:
    for name, right in (("a", 40), ("b", 20)):
        row, made = cell(10)
        stored(tmp_path / name, (row, made), clean=np.array(bits(right), bool))
    found = {change.part: change for change in both(tmp_path)}
    assert (found["clean"].before, found["clean"].after, found["clean"].what) == (1.0, 0.5, "worse")
    assert found["attack"].what == "same"


def test_a_random_models_shares_of_draws_are_compared_not_its_majorities(tmp_path: Path) -> None:
    """Every image loses 3 of 20 draws, and none its majority: rounded to bits these two are the same."""
    before, after = ([[1] * k + [0] * (20 - k)] * N for k in (18, 15))
    rows = [a_row(each, ids=f"0:{N}") for each in (before, after)]
    (found,) = changes(tmp_path, [rows[0]], [rows[1]]).values()
    assert found.before == pytest.approx(0.9) and found.after == pytest.approx(0.75) and found.what == "worse"


def test_renamed_models_and_defenses_meet_by_map(tmp_path: Path) -> None:
    before = [cell(30, model="old"), cell(30, model="old", defense="jpg")]
    after = [cell(18, model="new"), cell(30, model="new", defense="jpeg")]
    with pytest.raises(StoreError, match="before: old / jpg, old / none; after: new / jpeg, new / none; --map OLD=NEW"):
        changes(tmp_path, before, after)
    found = changes(tmp_path, before, after, part="clean", names={"old": "new", "jpg": "jpeg"})
    assert len(found) == 1 and found["clean"].what == "same"
    folders = [str(tmp_path / name) for name in "ab"]
    assert main(["compare", *folders, "--map", "old=new", "--map", "jpg=jpeg"]) == 1
    assert main(["compare", *folders, "--map", "old=new"]) == 1
    for wrong in (["odl=new"], ["old"], ["old=new", "old=x"], ["jpg=none"]):
        assert main(["compare", *folders, *(part for name in wrong for part in ("--map", name))]) == 2


def test_what_is_lost_or_smaller_is_said_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "a", a_row(bits(30) + [0] * 20, ids="0:60", data_digest="e" * 64), cell(30, attack="bim"))
    stored(tmp_path / "b", cell(30, weights_digest="v" * 64), cell(30, attack="apgd"))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "found.json")]) == 5
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "only before (1): cifar10 linf:8/255, preact_small / none, bim (75.0)",
        "only after (1): cifar10 linf:8/255, preact_small / none, apgd (75.0)",
        "on the 40 images that both have, of 60 before and 40 after: 1 cell.",
        "Made differently, other weights_digest: 1 cell.",
    ):
        assert words in shown
    whats = [change["what"] for change in json.loads((tmp_path / "found.json").read_text())["changes"]]
    assert sorted(whats) == ["only after", "only before", "same", "same"]


def test_the_power_is_that_of_the_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By brute force over all that may come: how often a true drop of d is called worse."""

    def chance(n: int, alpha: float, churn: float, drop: float) -> float:
        share = max(churn, drop)
        return sum(
            stats.binom.pmf(k, n, share) * stats.binom.pmf(lost, k, (1 + drop / share) / 2)
            for k in range(n + 1)
            for lost in range(k + 1)
            if 2 * lost > k and mcnemar(lost, k - lost) < alpha
        )

    for n, alpha, churn in ((40, 0.05, 0.0), (30, 0.01, 0.3), (25, 0.0625, 0.1)):
        drop = noticeable(n, alpha, churn)
        assert drop is not None
        assert chance(n, alpha, churn, drop) >= 0.8 > chance(n, alpha, churn, drop - 2e-5)
    assert noticeable(5, 0.05) is None  # all 5 lost: p = 0.0625
    stored(tmp_path / "a", cell(30))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    drop = noticeable(N, 0.05 / 2, 0.0)
    assert drop is not None and 100 * drop < 21.9 < 100 * drop + 0.1
    assert "n = 40 would notice a drop of 21.9 points" in capsys.readouterr().out


@pytest.mark.parametrize("alpha", ["2", "0", "1", "-1", "nan", "inf"])
def test_a_risk_that_is_none_is_an_error(alpha: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "a", cell(30))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a"), f"--alpha={alpha}"]) == 2
    assert "must lie in (0, 1)" in capsys.readouterr().err
