"""What changed between two results folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import a_row, stored
from scipy import stats

from robustbench_local.cli import main
from robustbench_local.errors import StoreError
from robustbench_local.report.compare import Change, compare
from robustbench_local.report.results import Results
from robustbench_local.store import Row

N = 40


def bits(k: int, n: int = N) -> list[int]:
    return [1] * k + [0] * (n - k)


def cell(k: int, **about: Any) -> tuple[Row, np.ndarray]:
    return a_row(bits(k), **({"ids": f"0:{N}"} | about))


def changes(
    folder: Path, before: list[tuple[Row, np.ndarray]], after: list[tuple[Row, np.ndarray]]
) -> dict[str, Change]:
    for name, made in (("a", before), ("b", after)):
        stored(folder / name, *made)
    found = compare(Results.read([folder / "a"]), Results.read([folder / "b"]))
    return {change.name.rpartition(", ")[2]: change for change in found}


def test_same_images_are_paired_and_the_p_value_is_mcnemars(tmp_path: Path) -> None:
    found = changes(tmp_path, [cell(30)], [cell(18, weights_digest="v" * 64)])["pgd"]
    assert (found.what, found.before, found.after) == ("worse", 0.75, 0.45)
    assert found.pair is not None
    assert (found.pair.n, found.pair.only_first, found.pair.only_second) == (N, 12, 0)
    assert found.p == pytest.approx(stats.binomtest(12, 12).pvalue)
    assert found.worse
    back = changes(tmp_path / "back", [cell(18)], [cell(30)])["pgd"]
    assert (back.what, back.worse) == ("better", False)


def test_a_difference_that_luck_explains_is_called_so(tmp_path: Path) -> None:
    found = changes(tmp_path, [cell(30)], [cell(27)])["pgd"]
    assert (found.what, found.worse) == ("within luck", False)
    assert changes(tmp_path / "same", [cell(30)], [cell(30)])["pgd"].what == "same"


def test_many_cells_are_held_to_a_stricter_level(tmp_path: Path) -> None:
    """6 of 6 lost has p = 0.031: worse if it is the only cell, luck among eight (Holm)."""
    names = [f"a{k}" for k in range(8)]
    before = [cell(30, attack=name) for name in names]
    after = [cell(24 if name == "a0" else 30, attack=name) for name in names]
    assert changes(tmp_path / "one", before[:1], after[:1])["a0"].what == "worse"
    many = changes(tmp_path / "many", before, after)
    assert many["a0"].what == "within luck"
    assert many["a0"].p == pytest.approx(8 * stats.binomtest(6, 6).pvalue)


def test_only_shared_images_are_compared(tmp_path: Path) -> None:
    longer = a_row(bits(30) + [0] * 20, ids="0:60", data_digest="e" * 64)
    found = changes(tmp_path, [longer], [cell(30)])["pgd"]
    assert found.pair is not None
    assert (found.pair.n, found.what, found.before) == (N, "same", 0.75)


def test_other_data_is_not_compared(tmp_path: Path) -> None:
    found = changes(tmp_path, [cell(30)], [cell(30, data_digest="e" * 64)])["pgd"]
    assert (found.what, found.p, found.worse) == ("other data", None, True)


def test_a_lost_or_failed_cell_is_for_the_worse_and_a_new_one_is_not(tmp_path: Path) -> None:
    found = changes(
        tmp_path, [cell(30), cell(30, attack="fgsm"), cell(30, attack="bim")],
        [cell(30), a_row(None, attack="fgsm", ids=f"0:{N}"), cell(30, attack="apgd")],
    )  # fmt: skip
    assert {name: change.what for name, change in found.items()} == {
        "pgd": "same", "fgsm": "failed after", "bim": "only before", "apgd": "only after",
    }  # fmt: skip
    assert {name for name, change in found.items() if change.worse} == {"fgsm", "bim"}


def test_other_settings_of_a_defense_meet_by_name_and_other_steps_of_an_attack_do_not(tmp_path: Path) -> None:
    found = changes(
        tmp_path,
        [cell(30, defense="jpeg", defense_settings={"quality": 75}), cell(30, attack_settings={"steps": 10})],
        [cell(30, defense="jpeg", defense_settings={"quality": 50}), cell(30, attack_settings={"steps": 40})],
    )
    assert {name: change.what for name, change in found.items()} == {
        "pgd": "same", "pgd (steps=10)": "only before", "pgd (steps=40)": "only after",
    }  # fmt: skip


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
