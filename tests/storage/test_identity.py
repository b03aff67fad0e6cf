"""What tells cells apart: every key of a definition does, in tables as in comparisons, a new one as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robustbench_local.report.corruption import corruption_tables
from robustbench_local.report.labels import attack_labels
from robustbench_local.report.results import newest
from robustbench_local.report.table import Table, robust_tables
from robustbench_local.storage.row import VERSIONS, Row, row_key
from tests.helpers.rows import OTHER, a_row

BITS = [1, 0, 1, 1]


def shown(tables: list[Table]) -> list[str]:
    return [row["key"] for table in tables for line in table.lines for row in line.rows if row is not None]


def shares_of(row: Row) -> np.ndarray:
    return np.array(BITS, np.float64)


def test_the_keys_of_a_definition_are_all_here() -> None:
    """access and eps follow from attack and threat."""
    row, _ = a_row(BITS)
    assert row["definition"].keys() <= {*OTHER, "access", "eps"}


@pytest.mark.parametrize("key", OTHER)
@pytest.mark.parametrize("random", [False, True])
def test_rows_that_differ_in_one_key_are_two_cells_of_the_tables(key: str, random: bool) -> None:
    made: list[Any] = [[bit] * 3 for bit in BITS] if random else BITS
    rows = [a_row(made)[0], a_row(made, **{key: OTHER[key]})[0]]
    assert rows[0].of_cell() != rows[1].of_cell()
    tables = robust_tables(rows, shares_of)
    assert sorted(shown(tables)) == sorted(row["key"] for row in rows)
    for table in tables:
        assert len({*map(str, table.attacks)}) == len(table.attacks)  # and headings tell them apart
        assert len({(line.model, str(line.defense)) for line in table.lines}) == len(table.lines)


@pytest.mark.parametrize("key", [key for key in OTHER if key not in ("adaptive", "threat")])  # it aims at nobody
def test_and_of_the_tables_of_corruptions(key: str) -> None:
    about: dict[str, Any] = {"attack": "fog", "threat": "none", "access": "none", "corruption": "CIFAR-10-C"}
    about |= {"attack_settings": {"severity": 3, "x": 0}}
    value = OTHER[key] if key != "attack_settings" else {"severity": 3, "x": 1}
    rows = [a_row(BITS, **about)[0], a_row(BITS, **(about | {key: value}))[0]]
    for row in rows:
        row["results"] |= {"corruption_accuracy": 0.75, "corruption_interval": [0.3, 0.95]}
    cells = [row for table in corruption_tables(rows) for line in table.lines for row in line.cells.values() if row]
    assert sorted(row["key"] for row in cells) == sorted(row["key"] for row in rows)


@pytest.mark.parametrize("key", OTHER)
def test_only_a_later_version_takes_a_cells_place(key: str) -> None:
    rows = [a_row(BITS)[0], a_row(BITS, **{key: OTHER[key]})[0]]
    assert len(newest(rows)) == (1 if key in VERSIONS else 2)


def test_what_a_definition_leaves_out_is_the_usual() -> None:
    bare, said = a_row(BITS)[0], a_row(BITS, adaptive=True, attack_under=None)[0]
    assert bare.of_cell() == said.of_cell() and bare.of_attack() == said.of_attack()


def test_a_folder_of_rows_that_grew_meanwhile_is_one_column_unless_a_model_met_both() -> None:
    """Replay reads what earlier cells kept: more of it for every further model."""
    made = [a_row(BITS, attack="replay", defense=name, attack_sources={"rows": name * 64})[0] for name in "ab"]
    (table,) = robust_tables(made, shares_of)
    assert len(table.attacks) == 1 and all(line.worst[0] for line in table.lines)
    again, _ = a_row(BITS, attack="replay", defense="a", attack_sources={"rows": "c" * 64})
    (table,) = robust_tables([*made, again], shares_of)
    assert len(table.attacks) == 3


def test_an_attack_may_be_called_naive_and_still_counts() -> None:
    """Which attacks are no part of the worst case is in their rows, not in their names."""
    low, high = a_row([0, 0, 1, 1], attack="naive bayes")[0], a_row([1, 1, 1, 1])[0]
    shares = {low["key"]: np.array([0, 0, 1, 1.0]), high["key"]: np.ones(4)}
    (table,) = robust_tables([low, high], lambda row: shares[row["key"]])
    assert table.lines[0].worst[0] is not None and table.lines[0].worst[0].value == 0.5


def test_labels_name_a_key_that_nobody_has_heard_of() -> None:
    labels = attack_labels([a_row(BITS, a_new_key=value)[0] for value in ("x", "y")])
    assert [str(label) for label in labels] == ["pgd (a_new_key=x)", "pgd (a_new_key=y)"]


def test_long_values_are_shortened_unless_that_makes_them_alike() -> None:
    long = [f"{'x' * 30}{k}" for k in range(2)]
    labels = attack_labels([a_row(BITS, attack_settings={"loss": each})[0] for each in long])
    assert [str(label) for label in labels] == [f"pgd (loss={each})" for each in long]
    digests = attack_labels([a_row(BITS, attack_settings={"loss": each * 64})[0] for each in "ab"])
    assert [str(label) for label in digests] == ["pgd (loss=aaaaaaaa)", "pgd (loss=bbbbbbbb)"]


def test_an_audit_is_named_as_before() -> None:
    """The name of an audit's file is made of this text: another one would orphan what is kept."""
    row, _ = a_row(BITS)
    expected = f'["preact_small", "{"w" * 64}", "none", {{}}, 1, "cifar10", "test", "0:4", "{"d" * 64}", null, null]'
    assert row.of_group() == expected and row["key"] == row_key(row["definition"])
