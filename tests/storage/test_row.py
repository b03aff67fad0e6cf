"""A row is its file's JSON object and no other; what older rows say otherwise is read as today's say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, get_origin, get_type_hints

import numpy as np
import pytest

from robustbench_local.core.access import Access
from robustbench_local.core.errors import StoreError
from robustbench_local.storage import row, schema
from robustbench_local.storage.archive import NAME, Packed
from robustbench_local.storage.row import Row, clean_shares, robust_shares, row_key, row_of
from robustbench_local.storage.sealing import SCHEMA, digest, sealed, written
from robustbench_local.storage.store import Store
from tests.helpers.rows import FOG, a_row

RESULTS = Path(__file__).resolve().parents[2] / "results"
CORRUPTED = {f"{key}?": shape for key, shape in schema.CORRUPTED.items()}
ARCHIVES = sorted(RESULTS.rglob(NAME))


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: str(path.parent.relative_to(RESULTS)))
def test_every_published_row_is_written_as_it_was_read(path: Path) -> None:
    files = {name: content for name, content in Packed(path).files.items() if "/" not in name and name.endswith("json")}
    assert files
    for name, content in files.items():
        row = row_of(content, name.removesuffix(".json"))
        assert written(row) == content  # its checksum and its key were compared


def test_a_row_of_another_key_is_none(tmp_path: Path) -> None:
    made, bits = a_row([1, 0, 1, 1])
    arrays = {"robust": bits, "clean": bits | True, "labels": np.arange(4), "ids": np.arange(4)}
    row = Store(tmp_path).write(made.key, made, arrays)
    assert row_of(written(row), row.key) == row
    with pytest.raises(StoreError, match="it is the row of"):
        row_of(written(row), "0" * 24)
    with pytest.raises(StoreError, match="it is the row of"):
        row_of(written(sealed(row.changed(seed=7))), row.key)


def test_fields_that_are_typed_are_those_that_are_checked() -> None:
    for fields, shape in ((schema.Definition, schema.DEFINITION), (schema.Results, schema.RESULTS | CORRUPTED)):
        typed = get_type_hints(fields, include_extras=True)
        assert {f"{key}?" if get_origin(kind) is NotRequired else key for key, kind in typed.items()} == {*shape}


def test_a_row_says_what_it_is_of() -> None:
    row, _ = a_row([1, 0, 1, 1], attack_under=FOG, defense="jpeg", targets=3)
    assert (row.model, row.defense, row.attack, row.threat) == ("preact_small", "jpeg", "pgd", "linf:8/255")
    assert (row.ok, row.access, row.images, row.under, row.said("targets")) == (True, Access.GRADIENTS, 4, "fog:3", 3)
    assert row.eps == pytest.approx(8 / 255) and row.versions == ([1], 1) and not row.stochastic and not row.corrupts
    assert row.changed(ids=[3, 9]).images == 2 and row.images == 4  # a copy
    assert row.without(["attack_under"]).under is None
    failed, _ = a_row(None)
    assert not failed.ok and failed.failure == "ModelError: logits\nare NaN"


def test_a_row_stays_a_dict_for_scripts() -> None:
    row, _ = a_row([1, 0, 1, 1])
    assert json.loads(json.dumps(row)) == row and row["results"]["robust_accuracy"] == row.results["robust_accuracy"]


def test_older_rows_leave_out_what_is_usual_and_call_arrays_otherwise(tmp_path: Path) -> None:
    made, bits = a_row([1, 0, 1, 1])
    del made["definition"]["attack_version"]
    assert made.adaptive and made.versions == ([1], 1) and made.families == [""] and not made.minimises
    made, bits = a_row([1, 0, 1, 1])
    arrays = {"robust": bits, "clean": bits | True, "labels": np.arange(4), "ids": np.arange(4)}
    store = Store(tmp_path)
    row = store.write(made.key, made, arrays | {"won": np.ones(4, np.float32)})
    assert row.minimises and "success" in row.array_names and "won" not in row.array_names
    assert store.arrays(row.key).keys() == {*arrays, "success"}
    assert store.arrays(row.key, "success", "robust").keys() == {"success", "robust"}
    assert Row(row, minimises=False, families=["training"]).families == ["training"]
    assert not Row(row, minimises=False).minimises


def test_shares_are_of_draws_where_there_are_several() -> None:
    fixed = {"clean": np.array([True, False]), "robust": np.array([False, False])}
    assert clean_shares(fixed).tolist() == [1.0, 0.0] and robust_shares(fixed).tolist() == [0.0, 0.0]
    random = fixed | {"bits": np.array([[1, 0], [0, 0]], bool), "clean_bits": np.array([[1, 1], [1, 0]], bool)}
    assert clean_shares(random).tolist() == [1.0, 0.5] and robust_shares(random).tolist() == [0.5, 0.0]


WHOLES = ({"a": 1.0}, {"a": [2.0, 1]}, {"a": 1e16}, {"a": 1e300}, {"a": -0.0}, {"a": {"b": 3.0}})


@pytest.mark.parametrize(
    "definition", [*WHOLES, {"a": 1}, {"a": 0.5}, {"a": 1e-7}, {"a": "x.0}"}, {"a": "1e+5"}, {"a": "9.0"}, {"a": True}]
)
def test_the_key_of_what_was_read_is_that_of_what_was_written(definition: dict[str, object]) -> None:
    read = json.loads(json.dumps(definition))
    assert row._key_read(read) == row_key(definition)
    bare = digest({"schema": SCHEMA, "definition": read}, 24)  # as if no float were whole
    assert (bare != row_key(definition)) is any(definition is each for each in WHOLES)
