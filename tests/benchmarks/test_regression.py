"""How often a regression check errs: the committed table meets its criteria, and is what the same code finds."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks._kept import Row, kept
from benchmarks._regression_draws import PAIRS, Pair, enough, power_of, shares_of, simulated
from benchmarks._regression_reruns import CASES, Case, reruns
from benchmarks._regression_table import faults, figures, markdown
from benchmarks.regression import LARGE, TIMES, main
from robustbench_local.metrics.paired import holm
from robustbench_local.regression import known_images, lock
from robustbench_local.regression.measured import Audits
from robustbench_local.regression.session import ALPHA, Session, images_beside

KEPT = Path(__file__).parents[2] / "results" / "benchmarks" / "regression"
TINY = Case("tiny", "fixed", 40, steps=5)
PAIR = Pair("bits", "none", "none", "linf:0.1", images=4000)


@pytest.fixture(scope="module")
def reran() -> list[Row]:
    return kept(KEPT / "reruns.jsonl")


@pytest.fixture(scope="module")
def table(reran: list[Row]) -> dict[str, Any]:
    return figures(reran, kept(KEPT / "draws.jsonl"))


def test_the_committed_table_is_of_the_code_as_it_is_and_meets_the_criteria(table: dict[str, Any]) -> None:
    assert (KEPT / "table.md").read_text(encoding="utf-8") == markdown(table)
    assert faults(table) == []
    assert [each["runs"] for each in table["reruns"]] == [TIMES] * len(CASES)
    assert {each["pair"]["name"] for each in table["draws"]} == {pair.name for pair in PAIRS}
    assert all(each["times"] == TIMES for each in table["draws"])
    assert all(LARGE in {each["n"] for each in table["draws"] if each["pair"]["name"] == pair.name} for pair in PAIRS)


def test_the_page_quotes_the_table(table: dict[str, Any]) -> None:
    (fixed,) = (each for each in table["reruns"] if each["case"]["name"] == "fixed")
    (large,) = (each for each in table["draws"] if each["pair"]["name"] == "fixed" and each["n"] == LARGE)
    failed, low, high = (100 * each for each in fixed["failed"])
    text = " ".join((KEPT.parents[2] / "docs/regression.md").read_text(encoding="utf-8").split())
    assert f"{failed:.1f} % failed (95 % interval {low:.1f}-{high:.1f} %;" in text
    assert (
        f"a drop of {100 * large['drop']:.1f} points on 500 images was caught in {100 * large['caught'][0]:.1f} %"
        in text
    )


def test_every_committed_run_is_judged_as_its_p_values_are_now(reran: list[Row]) -> None:
    runs = [row for row in reran if "seed" in row]
    assert len({(row["case"], row["seed"]) for row in runs}) == len(runs)
    for row in runs:
        adjusted = dict(zip(row["p"], holm([*row["p"].values()]), strict=True))
        if all(abs(p - ALPHA) > 1e-5 for p in adjusted.values()):  # they are rounded
            assert row["rejected"] == [name for name, p in adjusted.items() if p < ALPHA]
            assert row["verdict"] == _verdict(row["rejected"])


def _verdict(rejected: list[str]) -> str:
    if "masked, last" in rejected:
        return "cannot judge"
    return "worse" if rejected else "holds"


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair.name))
def test_what_was_predicted_is_what_the_formulas_say_now(pair: Pair) -> None:
    key = pair.key
    own = [row for row in kept(KEPT / "draws.jsonl") if row["pair"] == key]
    first, second = shares_of(pair, next(row for row in own if "first" in row))
    drawn = [row for row in own if "caught" in row]
    assert {row["n"] for row in drawn} == {enough(first, second), LARGE}
    for row in drawn:
        assert row["predicted"] == pytest.approx(power_of(first, second, row["n"]), abs=1e-5)
    assert 0.03 < (first - second).mean() < 0.07 or pair.name == "random"


def test_a_fault_of_any_kind_is_named(table: dict[str, Any]) -> None:
    def broken(part: str, **changes: Any) -> list[str]:
        other = deepcopy(table)
        other[part][0] |= changes
        return faults(other)

    assert "of the runs fail" in broken("reruns", failed=[0.07, 0.056, 0.088])[0]
    assert "without_holm" in broken("reruns", without_holm=[0.06, 0.047, 0.077])[0]
    assert "replays_counted" in broken("reruns", replays_counted=[0.06, 0.047, 0.077])[0]
    assert "were predicted" in broken("draws", predicted=0.5)[0]
    assert " pass" in broken("draws", passed=[0.07, 0.056, 0.088])[0]
    assert "measured_passed" in broken("draws", measured_passed=[0.05, 0.03, 0.07])[0]


def test_a_rerun_says_what_a_session_says(tmp_path: Path) -> None:
    audits: Audits = {}
    (row,) = reruns(TINY, 2, 3, audits)
    file = tmp_path / lock.NAME

    def session(**about: Any) -> Session:
        made = Session(lock=file, folder=tmp_path / "rows", **about)
        made._audits.update(audits)
        return made

    def settings(seed: int) -> dict[str, Any]:
        return {key: value for key, value in vars(TINY.check(seed, tmp_path)).items() if value is not None}

    for seed in (0, 1):
        updated = session(update=True, keep_images=True)
        updated.check(**settings(seed))
        updated.finish()
    outcome = session().check(**settings(2))
    assert row["verdict"] == str(outcome.verdict) and not outcome.problems
    assert row["p"] == {f"{each.kind}, {each.against}": round(each.p, 6) for each in outcome.comparisons}
    assert len(row["p"]) == 3 and row["changed"] > 0
    assert row["replays_counted"] <= row["p"]["less robust, last"]  # more is broken
    assert known_images.read(images_beside(file), TINY.name) is not None


def population(lost: float, gained: float) -> tuple[Any, Any]:
    """Bits of two models, of which these shares are robust in one alone."""
    place = np.arange(PAIR.images) / PAIR.images
    first = (place < 0.8).astype(np.float64)
    second = np.where(place < lost, 0.0, np.where(place >= 1 - gained, 1.0, first))
    return first, second


def test_draws_are_judged_by_the_exact_test() -> None:
    first, second = population(0.1, 0.03)
    found = simulated(PAIR, first, second, 100, 20)
    generator, caught = np.random.default_rng(0), 0
    for _ in range(20):
        apart = (first - second)[generator.integers(0, PAIR.images, 100)]
        lost, gained = int((apart > 0).sum()), int((apart < 0).sum())
        caught += bool(stats.binomtest(lost, lost + gained, 0.5, "greater").pvalue < ALPHA)
    assert 0 < found["caught"] == caught < 20
    assert found["drop"] == pytest.approx(0.07) and found["exchanged"] == pytest.approx(0.06)
    assert found["passed"] <= 5 < found["measured_passed"]


def test_the_predicted_power_is_that_of_bits_drawn_without_the_code() -> None:
    first, second = population(0.1, 0.03)
    apart = first - second
    generator = np.random.default_rng(1)
    lost, gained = generator.multinomial(100, [(apart > 0).mean(), (apart < 0).mean(), (apart == 0).mean()], 20_000).T[
        :2
    ]
    p = stats.binom.sf(lost - 1, lost + gained, 0.5)
    share = float((p < ALPHA).mean())
    error = 4 * (share * (1 - share) / 20_000) ** 0.5
    assert power_of(first, second, 100) == pytest.approx(share, abs=error)
    assert power_of(first, second, 100, ALPHA / 2) < share - error  # a two-sided test would be told from it
    n = enough(first, second)
    assert power_of(first, second, n) >= 0.8 > power_of(first, second, n - 1)


def test_what_is_kept_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reruns.jsonl.xz", "draws.jsonl"):
        (tmp_path / name).write_bytes((KEPT / name).read_bytes())

    def again(*_: object, **__: object) -> Row:
        raise AssertionError("it was kept")

    for name in ("reruns", "attacked", "simulated"):
        monkeypatch.setattr(f"benchmarks.regression.{name}", again)
    main(["--out", str(tmp_path)])
    assert (tmp_path / "table.md").read_bytes() == (KEPT / "table.md").read_bytes()
    with pytest.raises(AssertionError, match="kept"):
        main(["--out", str(tmp_path), "--times", str(TIMES + 1)])
