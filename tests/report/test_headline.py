"""The answer first: sentences by rule, which are never more than was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.report.corruption import corruption_tables
from robustbench_local.report.headline import answer, headline, weathered
from robustbench_local.report.results import Results
from robustbench_local.report.table import Table
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row

N = 40
TRAINED = {"families": ["adversarial training"]}


def bits(kept: int) -> list[int]:
    return [1] * kept + [0] * (N - kept)


def results_of(tmp_path: Path, *made: tuple[Any, np.ndarray]) -> Results:
    """Of rows that no file holds; of a random model the mean over its draws."""
    shares = {row["key"]: (known.mean(1) if known.ndim == 2 else known).astype(np.float64) for row, known in made}
    return Results([row for row, _ in made], {row["key"]: Store(tmp_path) for row, _ in made}, shares)


@pytest.fixture
def tables(tmp_path: Path) -> Any:
    def of(*settings: dict[str, Any]) -> list[Table]:
        made = [a_row(each.pop("robust"), **{"ids": f"0:{N}", **each}) for each in settings]
        results = results_of(tmp_path, *made)
        keys = [row["key"] for row in results.rows]
        assert len(set(keys)) == len(keys)
        found = results.tables()
        return [replace(table, lines=tuple(replace(line, unaudited="") for line in table.lines)) for table in found]

    return of


def test_one_kind_of_defense_alone_withstands(tables: Any) -> None:
    (table,) = tables(
        {"robust": bits(37), "defense": "pgd_at", **TRAINED},
        {"robust": bits(30), "defense": "trades", **TRAINED},
        {"robust": bits(2), "defense": "jpeg", "families": ["preprocessing"]},
        {"robust": bits(0)},
    )
    assert headline(table).sentence == "Only adversarial training withstands: 37 of 40 CIFAR-10 images, at most."
    assert answer([table], []) == [headline(table).sentence]


def test_of_a_kind_that_fell_too_the_share_is_said(tables: Any) -> None:
    kinds = {"robust": bits(1), "defense": "mart", **TRAINED}
    best = {"robust": bits(37), "defense": "pgd_at", **TRAINED}
    second = {"robust": bits(36), "defense": "trades", **TRAINED}
    (table,) = tables(dict(best), dict(second), dict(kinds), {"robust": bits(0)})
    assert headline(table).only == "adversarial training (2 of 3 models)"
    (table,) = tables(dict(best), dict(kinds), {"robust": bits(0)})
    assert headline(table).only == "pgd_at"


def test_only_is_not_said_of_what_these_images_cannot_tell_apart(tables: Any) -> None:
    """The broken twin: one image less than half is no worse beyond doubt."""
    (table,) = tables({"robust": bits(20), "defense": "trades", **TRAINED}, {"robust": bits(19), "defense": "jpeg"})
    assert headline(table).sentence == "1 of 2 models withstands: 20 of 40 CIFAR-10 images, at most, with trades."


def test_all_none_and_one(tables: Any) -> None:
    (table,) = tables({"robust": bits(30), "defense": "trades"}, {"robust": bits(31)})
    assert headline(table).sentence == "2 of 2 models withstand: 31 of 40 CIFAR-10 images, at most, with undefended."
    (table,) = tables({"robust": bits(3), "defense": "trades"}, {"robust": bits(0)})
    assert headline(table).sentence == "No model withstands: at most 3 of 40 CIFAR-10 images, with trades."
    (table,) = tables({"robust": bits(30)})
    assert headline(table).sentence == "preact_small, undefended withstands: 30 of 40 CIFAR-10 images, at most."
    (table,) = tables({"robust": bits(3)})
    assert headline(table).sentence == "preact_small, undefended does not withstand: at most 3 of 40 CIFAR-10 images."


def test_what_is_missing_is_not_spoken_of_as_if_it_fell(tables: Any) -> None:
    (table,) = tables(
        {"robust": bits(37), "defense": "trades", **TRAINED}, {"robust": bits(0)}, {"robust": None, "defense": "jpeg"}
    )
    said = "Only adversarial training is seen to withstand: 37 of 40 CIFAR-10 images, at most."
    assert headline(table).sentence == f"{said} 1 model has no figure to believe."
    (table,) = tables({"robust": None}, {"robust": None, "defense": "jpeg"})
    assert headline(table).sentence == "No figure to believe: an attack is missing or failed on 2 models."
    assert headline(table).known == 0


def test_neither_broken_figures_nor_chance_withstand(tables: Any) -> None:
    broken = Finding("losses", Status.BROKEN, "masked", {}, "", "")
    (table,) = tables({"robust": bits(40), "defense": "jpeg"}, {"robust": bits(4)})
    first = replace(table.lines[0], faults=(broken,), rank=None)
    said = headline(replace(table, lines=(table.lines[1], first))).sentence
    assert said.startswith("No model is seen to withstand: at most 4 of 40") and "1 model has no figure" in said
    all_broken = replace(table, lines=tuple(replace(line, faults=(broken,)) for line in table.lines))
    assert headline(all_broken).sentence == "No figure to believe: the audit calls 2 models broken."
    (table,) = tables({"robust": bits(40), "flags": ["at_chance"]})
    assert headline(table).sentence == "No figure to believe: 1 model is at chance without an attacker."


def test_a_model_that_draws_random_numbers_keeps_a_mean(tables: Any) -> None:
    draws = np.zeros((N, 4))
    draws[:, 0] = 1
    (table,) = tables({"robust": draws.tolist()})
    assert "at most 25.0 % of 40 CIFAR-10 images" in headline(table).sentence


def test_several_tables_are_summed_up_by_threat_model(tables: Any) -> None:
    good = {"robust": bits(37), "defense": "trades", **TRAINED}
    found = tables(
        dict(good),
        {"robust": bits(0)},
        {**good, "robust": bits(2), "threat": "l2:0.5"},
        {"robust": bits(0), "threat": "l2:0.5"},
        {**good, "robust": bits(2), "threat": "l1:12"},
        {"robust": bits(0), "threat": "l1:12"},
        {**good, "threat": "l0:1"},
        {"robust": bits(36), "threat": "l0:1"},
    )
    assert answer(found, []) == [
        "Only adversarial training withstands the L∞ ball of radius 8/255: 37 of 40 CIFAR-10 images, at most.",
        "No model withstands the L1 ball of radius 12 or the L2 ball of radius 0.5.",
        "All 2 models withstand 1 pixel changed: 37 of 40 CIFAR-10 images, at most.",
    ]


def test_random_models_within_the_same_ball_count_too(tables: Any) -> None:
    """The broken twin of "only": one that draws random numbers withstands as well."""
    good = {"robust": bits(37), "defense": "trades", **TRAINED}
    weak = {"robust": np.zeros((N, 3)).tolist(), "defense": "noise"}
    (said,) = answer(tables(dict(good), {"robust": bits(0)}, weak), [])
    assert said.startswith("Only adversarial training withstands the L∞ ball")
    strong = {"robust": np.tile([1, 1, 0], (N, 1)).tolist(), "defense": "noise"}
    (said,) = answer(tables(dict(good), {"robust": bits(0)}, strong), [])
    assert said.startswith("2 of 3 models withstand the L∞ ball")


def test_the_same_ball_with_other_answers_is_named_by_its_images(tables: Any) -> None:
    good = {"robust": bits(37), "defense": "trades", **TRAINED}
    few = {"ids": "0:20", "attack": "zoo", "access": "scores"}
    found = tables(dict(good), {"robust": bits(0)}, {"robust": [1] * 15 + [0] * 5, **few})
    first, second = answer(found, [])
    assert first.startswith("Only adversarial training withstands the L∞ ball of radius 8/255 (40 images)")
    assert second.startswith("The model withstands the L∞ ball of radius 8/255 (20 images)")


def test_more_answers_than_can_be_read_are_counted(tables: Any) -> None:
    found = []
    for place in range(8):
        kept = [bits(37)] * (place + 1) + [bits(0)] * (8 - place)
        found += tables(
            *({"robust": each, "defense": f"d{k}", "threat": f"l2:{place + 1}"} for k, each in enumerate(kept))
        )
    assert answer(found, []) == ["Some model withstands in 8 of 8 threat models."]


def test_nothing_at_all() -> None:
    assert answer([], []) == ["Nothing was measured."]


def test_corruptions_have_a_sentence_and_ranks(tmp_path: Path) -> None:
    def under(kept: int, name: str, defense: str) -> tuple[Any, np.ndarray]:
        about = {"access": "none", "threat": "none", "attack_settings": {"severity": 3}, "corruption": "CIFAR-10-C"}
        return a_row(bits(kept), ids=f"0:{N}", attack=name, defense=defense, **about)

    made = [under(36, "fog", "none"), under(20, "snow", "none"), under(4, "fog", "jpeg"), under(2, "snow", "jpeg")]
    right = {row["key"]: known.astype(np.float64) for row, known in made}
    (table,) = corruption_tables([row for row, _ in made], right=lambda row: right[row.key])
    assert [str(line.rank) for line in table.lines] == ["1", "2"]
    said = "Under corruptions undefended leads: 70.0 % of 40 CIFAR-10 images, 100.0 % without; hardest is snow, 50.0 %."
    assert weathered(table) == said
    assert answer([], [table]) == [said]
    (plain,) = corruption_tables([row for row, _ in made])
    assert [line.rank for line in plain.lines] == [None, None]
    (alike,) = corruption_tables([row for row, _ in made], right=lambda row: right[made[0][0].key])
    assert weathered(alike).endswith("1 other cannot be told apart from it on these images.")


def test_a_corruption_that_failed_leaves_no_figure() -> None:
    about = {"ids": f"0:{N}", "access": "none", "threat": "none", "corruption": "CIFAR-10-C"}
    rows = [a_row(None, attack=name, attack_settings={"severity": 3}, **about)[0] for name in ("fog", "snow")]
    (table,) = corruption_tables(rows)
    assert weathered(table) == "No figure: a corruption is missing or failed on every model."
