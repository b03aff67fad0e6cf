"""What a dry run says beside what a grid takes: the cases are grids, the table's ratios, and the published shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.audit_cost import CASES, measure, published_share, table
from robustbench_local.audit import retrying
from robustbench_local.audit.stronger import FEW
from robustbench_local.storage.store import Store

RESULTS = Path(__file__).parents[2] / "results"


def row(name: str, **changes: Any) -> dict[str, Any]:
    about = {
        "said": {"cells": 2.0, "audit": 1.0},
        "took": {"cells": 5.0, "audit": 1.0},
        "broken": 7,
        "hardware": "a CPU",
    }
    return {"case": name, **about, **changes}


def test_the_table_has_both_ratios_and_the_share() -> None:
    text = table([row("one"), row("other", said={"cells": 6.0, "audit": 0.0})], {"grid": 0.125})
    assert "| one | 3.0 | 6.0 | 0.50 | 1.00 | 1.00 | 1.00 | 0.20 | 7 |" in text
    assert "| other | 6.0 | 6.0 | 1.00 | 0.00 | 1.00 | – | 0.20 | 7 |" in text and "| grid | 0.125 |" in text


@pytest.mark.parametrize(("name", "parts"), [("noise_fusion", 15), ("purifier", 2)])
def test_of_random_models_an_audit_is_expected_to_spend_less_than_a_fifth(
    name: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the published rows, and of so much fewer images; not where twelve with all draws were tried in any case."""
    rows = [row for row in Store(RESULTS / name, own=False).rows() if row.ok]
    few = [type(row)({**row, "results": row.results | {"n": row.results["n"] / parts}}) for row in rows]
    assert published_share(rows) < 0.2 and published_share(few) < 0.2
    monkeypatch.setattr(retrying, "few_within", lambda budget, passes, eot, draws: (FEW, eot))
    assert published_share(few) > 0.3


@pytest.mark.slow
def test_a_random_models_audit_takes_less_than_a_fifth_and_is_foreseen(tmp_path: Path) -> None:
    found = measure("noise_fusion", CASES["noise_fusion, 20 images"], tmp_path)
    said, took = found["said"], found["took"]
    assert took["audit"] < took["cells"] / 5 and found["passes"]["audit"] < found["passes"]["cells"] / 5
    assert 1 / 1.5 < sum(said.values()) / sum(took.values()) < 1.5
