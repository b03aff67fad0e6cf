"""Published figures beside ours: the arithmetic, that every figure names one cell of its grid, and one real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from experiments.reproduce.__main__ import main, page, reproduce
from experiments.reproduce.compare import compare
from experiments.reproduce.published import Figure, find, reproductions
from robustbench_local.errors import ConfigError
from robustbench_local.grid import Grid
from robustbench_local.models import build_model, checkpoints
from robustbench_local.progress import Report


def row(n: int, clean: float, robust: float, **definition: object) -> dict[str, object]:
    results = {"n": n, "clean_accuracy": clean, "robust_accuracy": robust}
    of_pgd = {"attack": "pgd", "attack_settings": {"steps": 40}}
    return {"status": "ok", "definition": of_pgd | definition, "results": results}


def test_rates_and_success_among_the_images_that_were_right() -> None:
    rows = [row(200, 0.9, 0.45)]
    for figure, here, n in (("clean", 90, 200), ("robust", 45, 200), ("success", 50, 180)):
        compared = compare(Figure("it", {"attack": "pgd"}, 50, figure=figure), rows)
        assert compared.here == pytest.approx(here) and compared.n == n


def test_an_exact_figure_has_the_interval_of_ours_and_one_of_few_images_a_wider_one() -> None:
    exact, few = (compare(Figure("it", {}, 50, n), [row(1000, 1, 0.6)]) for n in (None, 100))
    low, high = stats.binomtest(600, 1000).proportion_ci(method="wilson")
    assert exact.interval == pytest.approx((100 * low - 50, 100 * high - 50))
    assert exact.interval and few.interval
    assert few.interval[0] < exact.interval[0] and few.interval[1] > exact.interval[1]
    assert exact.verdict == "10.0 points higher here" and few.verdict.startswith("agrees")


def test_newcombes_own_example() -> None:
    compared = compare(Figure("it", {}, 100 * 48 / 80, 80), [row(70, 1, 56 / 70)])
    assert compared.interval == pytest.approx((5.24, 33.39), abs=0.01)  # Newcombe 1998, table II, (a), method 10


def test_a_figure_names_one_row() -> None:
    rows = [row(10, 1, 1), row(10, 1, 0, attack_settings={"steps": 10})]
    assert compare(Figure("it", {"attack.steps": 10}, 50), rows).here == 0
    for cell in ({"attack": "pgd"}, {"attack.steps": 7}):
        with pytest.raises(ConfigError, match="it must name one"):
            compare(Figure("it", cell, 50), rows)


def test_a_failed_cell_agrees_with_nothing() -> None:
    failed = {"status": "error", "definition": {"attack": "pgd"}, "error": {}}
    compared = compare(Figure("it", {"attack": "pgd"}, 50), [failed])
    assert compared.here is None and compared.interval is None and "failed" in compared.verdict


def test_what_is_not_available_has_no_value_and_nothing_to_agree_with() -> None:
    assert compare(Figure("it", {}, certainty="-"), [row(10, 1, 1)]).verdict == "nothing to compare with"
    for value, certainty in ((50.0, "-"), (None, "V"), (50.0, "?")):
        with pytest.raises(ConfigError, match="certainty"):
            Figure("it", {}, value, certainty=certainty)


@pytest.mark.parametrize("name", list(reproductions()))
def test_every_figure_names_one_cell_of_its_grid(name: str, tmp_path: Path) -> None:
    item = find(name)
    overrides = {"n": 1000, "source": "bundled"}
    if item.needs:
        architecture = {"trades_mnist": "trades_cnn", "fast_mnist": "fast_cnn"}[name]
        checkpoints.save(tmp_path / "fresh.safetensors", build_model(architecture), {})
        overrides["weights"] = str(tmp_path / "fresh.safetensors")
    grid = Grid(str(item.grid), overrides, Report())
    rows = [{"status": "error", "definition": grid._definition(cell, None)} for cell in grid.cells]
    for figure in item.figures:
        compare(figure, rows)


def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    item = find("madry_mnist")
    overrides = {"n": 8, "source": "bundled", "results": str(tmp_path)}
    compared = reproduce(item, overrides, Report())
    assert compared[0].here is not None and compared[0].n == 8
    kept = json.loads((tmp_path / "madry_mnist/published.json").read_text())
    assert kept[0]["figure"]["value"] == 98.8 and len(kept) == len(item.figures)
    text = (tmp_path / "madry_mnist/published.md").read_text()
    assert text == page(item, compared) and "from memory" not in text and "| 98.80 | published |" in text


def test_missing_weights_say_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trades_mnist"]) == 2
    assert "needs weights=PATH" in (error := capsys.readouterr().err) and "liuye6666" in error
    assert main(["trade_mnist"]) == 2 and "did you mean" in capsys.readouterr().err
    assert main(["list"]) == 0 and "nfm_mnist" in capsys.readouterr().out
