"""Tables of any width: columns go, words stay."""

from __future__ import annotations

import pytest
from rich.text import Text

from robustbench_local.core.tables import Column, fitting, lines_of, table

NAMES = ["zoo:cifar10/adversarial_training", "none"]
COLUMNS = [
    Column("model", NAMES),
    Column("images", ["10,000", "100"], figures=True, last=2),
    Column("robust\naccuracy", ["45.2\n42.1-48.3", "0.0\n0.0-0.4"], figures=True, last=1),
    Column("verdict", [Text("within luck", "dim"), Text("worse", "red")], figures=True),
]


def printed(room: int, columns: list[Column] = COLUMNS) -> tuple[str, list[str]]:
    grid, left_out = table(columns, room)
    return lines_of(grid, room), left_out


@pytest.mark.parametrize("room", range(40, 101))
def test_no_line_is_wider_and_no_word_is_broken(room: int) -> None:
    text, left_out = printed(room)
    assert max(map(len, text.splitlines())) <= room
    words = {word for line in text.splitlines() for word in line.replace("─", " ").split()}
    for column in COLUMNS:
        if column.figures and " ".join(column.head.split()) not in left_out:
            assert {word for cell in column.cells for word in str(cell).split()} <= words, column.head
    assert "…" not in text and "adversarial_training" in text


def test_columns_go_in_the_order_that_they_say() -> None:
    wide, narrow, narrowest = (printed(room)[1] for room in (90, 50, 36))
    assert (wide, narrow, narrowest) == ([], ["images"], ["images", "robust accuracy"])


def test_a_name_that_has_no_place_to_break_ends_in_an_ellipsis() -> None:
    text, _ = printed(30, [Column("model", ["x" * 60]), Column("clean", ["93.5"], figures=True)])
    assert "…" in text and "93.5" in text and max(map(len, text.splitlines())) <= 30


def test_what_must_stay_stays_where_there_is_no_room() -> None:
    kept, left_out = fitting(COLUMNS, 5)
    assert [column.head for column in kept] == ["model", "verdict"] and len(left_out) == 2
