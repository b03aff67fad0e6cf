"""Published figures beside ours: the arithmetic, that every figure names one cell of its grid, and one real run."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from scipy import stats

from experiments.reproduce import __main__ as command
from experiments.reproduce import certified
from experiments.reproduce.__main__ import main
from experiments.reproduce.certified import Certify, certified_rows
from experiments.reproduce.compare import Compared, compare
from experiments.reproduce.kinds import KINDS, pooled
from experiments.reproduce.overview import overview
from experiments.reproduce.page import page, show
from experiments.reproduce.published import Figure, find, reproductions
from experiments.reproduce.runner import NotHereError, opened, reproduce, write_figures
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.defenses.randomized_smoothing import certify
from robustbench_local.grids.grid import Grid
from robustbench_local.models import zoo
from robustbench_local.models.build import build_model
from robustbench_local.storage import checkpoints
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.storage.row import Row


def row(n: int, clean: float, robust: float, **definition: object) -> Row:
    results = {"n": n, "clean_accuracy": clean, "robust_accuracy": robust}
    of_pgd = {"attack": "pgd", "attack_settings": {"steps": 40}}
    return Row(status="ok", definition=of_pgd | definition, results=results)


def test_rates_and_success_among_the_images_that_were_right() -> None:
    rows = [row(200, 0.9, 0.45)]
    for figure, here, n in (("clean", 90, 200), ("robust", 45, 200), ("success", 50, 180)):
        compared = compare(Figure("it", {"attack": "pgd"}, 50, figure=figure), rows)
        assert compared.here == pytest.approx(here) and compared.n == n


RESULTS = {
    "n": 200,
    "clean_accuracy": 0.9,
    "robust_accuracy": 0.45,
    "corruption_accuracy": 0.5,
    "certified_accuracy": 0.3,
    "classification": {"attacked": {"recall_micro": 0.6}},
    "detector": {"adversarial": 50, "detection_rate": 0.8, "roc_auc": 0.95, "false_positive_rate": 0.04},
}


def test_what_each_kind_reads_off_a_row() -> None:
    expected = {
        "clean": (0.9, 200),
        "robust": (0.45, 200),
        "robust_among_correct": (0.5, 180),
        "success": (0.5, 180),
        "attacked": (2 / 3, 180),
        "corrupted": (0.5, 200),
        "certified": (0.3, 200),
        "detected": (0.8, 50),
        "false_positives": (0.04, 200),
        "roc_auc": (0.95, 50),
    }
    assert expected.keys() == KINDS.keys()
    for kind, share in expected.items():
        assert pooled(kind, [RESULTS]) == pytest.approx(share), kind


def test_rows_taken_together_count_by_their_images_and_are_as_certain_as_one() -> None:
    other = RESULTS | {"detector": {"adversarial": 150, "detection_rate": 0.4, "roc_auc": 0.75}}
    assert pooled("detected", [RESULTS, other]) == pytest.approx((0.5, 150))  # not 0.6, the mean of the rates
    assert pooled("roc_auc", [RESULTS, other]) == pytest.approx((0.8, 150))
    none = {"detector": {"adversarial": 0, "detection_rate": None, "roc_auc": None}}
    assert pooled("detected", [none, RESULTS]) == (0.8, 50) and pooled("detected", [none]) is None
    never_right = RESULTS | {"clean_accuracy": 0.0, "robust_accuracy": 0.0}
    assert all(pooled(kind, [never_right]) is None for kind in ("robust_among_correct", "success", "attacked"))
    two = [row(100, 1, 0.5), row(100, 1, 0.7)]
    assert compare(Figure("it", {"attack": "pgd"}, 60, rows=2), two).here == pytest.approx(60)
    with pytest.raises(ConfigError, match=r"2 rows .* must name 75"):
        compare(Figure("it", {"attack": "pgd"}, 60, rows=75), two)


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
    failed = Row(status="error", definition={"attack": "pgd"}, error={})
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
    grid = Grid.open(str(item.grid), overrides, Progress())
    rows = [Row(status="error", definition=grid.task(cell, None).definition) for cell in grid.cells]
    radii = {figure.cell["radius"] for figure in item.figures if "radius" in figure.cell}
    assert bool(radii) == bool(item.certify)
    rows += [Row(status="error", definition={"radius": radius}) for radius in radii]
    for figure in item.figures:
        compare(figure, rows)


def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    item = find("madry_mnist")
    item = replace(item, figures=tuple(figure for figure in item.figures if figure.cell["attack"] == "fgsm"))
    overrides = {"n": 8, "source": "bundled", "results": str(tmp_path), "attacks": "fgsm"}
    compared = reproduce(item, overrides, Progress())
    assert compared[0].here is not None and compared[0].n == 8
    kept = json.loads((tmp_path / "madry_mnist/published.json").read_text())
    assert kept[0]["figure"]["value"] == 98.8 and len(kept) == len(item.figures)
    text = (tmp_path / "madry_mnist/published.md").read_text()
    assert text == page(item, compared, overrides) and "| 98.80 | published |" in text
    assert "from memory" not in text and "madry_mnist n=8 attacks=fgsm`" in text and str(tmp_path) not in text
    assert (tmp_path / "README.md").read_text() == overview(tmp_path)


def test_the_overview_counts_what_agrees_and_names_what_is_farthest_off(tmp_path: Path) -> None:
    item = find("madry_cifar10")
    own = [(80, 0.8), (90, 0.8), (50, 0.8), (None, 0.8)]  # agrees, lower, higher, nothing to compare with
    figures = [Figure(f"published {value}", {}, value, certainty="-" if value is None else "V") for value, _ in own]
    found = [compare(figure, [row(1000, 1, here)]) for figure, (_, here) in zip(figures, own, strict=True)]
    found.append(Compared(Figure("not measured", {}, 10), None, 0, None, "not run"))
    (tmp_path / item.name).mkdir()
    write_figures(tmp_path / item.name, found)
    lines = overview(tmp_path).splitlines()
    assert f"| [{item.title}]({item.name}/published.md) | 4, 1 not run | 1 | 1 | 1 | +30.0: published 50 |" in lines
    assert sum("not run yet: `python -m experiments.reproduce" in line for line in lines) == len(reproductions()) - 1


def test_a_terminal_of_80_columns_shows_figures_certainty_and_what_is_missing() -> None:
    figures = Figure("sure", {}, 80), Figure("recalled", {}, 90, certainty="M"), Figure("[red]ours", {}, certainty="-")
    found = [compare(figure, [row(1000, 1, 0.8)]) for figure in figures]
    found.append(Compared(Figure("PNI", {}, 10), None, 0, None, "not run; first: robustbench-local train zoo=a/b"))
    console = Console(width=80, record=True, file=io.StringIO())
    show(find("nfm_mnist"), found, console)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "sure (robust) 80.00 80.00 1000 +0.00 agrees" in lines
    assert "recalled 90.00 80.00 1000 -10.00 10.0 points" in lines
    assert any(line.startswith("(robust) from memory -1") for line in lines)
    assert "[red]ours not available 80.00 1000 – nothing to" in lines
    assert "PNI (robust) 10.00 – – – not run" in lines
    assert "Missing: not run; first: robustbench-local train zoo=a/b" in lines


@pytest.fixture
def bare_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo in which only mnist/none was trained, and nothing in the cache."""
    (tmp_path / "zoo/mnist").mkdir(parents=True)
    shutil.copy(zoo.ZOO / "mnist/none.safetensors", tmp_path / "zoo/mnist")
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path


def test_a_network_that_is_not_trained_is_left_out_and_said_how_to_make(bare_zoo: Path) -> None:
    item, given = find("madry_mnist"), {"n": 4, "source": "bundled"}
    grid, waiting = opened(item, given, Progress(), bare_zoo)
    assert {cell.model.defense_name for cell in grid.cells} == {"none"} and len(waiting) == 5
    compared = compare(item.figures[0], waiting)
    assert compared.verdict == "not run; first: robustbench-local train zoo=mnist/adversarial_training"
    assert compared.here is None and "not run" in page(item, [compared])
    (bare_zoo / "zoo/mnist/none.safetensors").unlink()
    with pytest.raises(NotHereError, match=r"train zoo=mnist/none; .*train zoo=mnist/adversarial_training$"):
        opened(item, given, Progress(), bare_zoo)
    assert not list((bare_zoo / "cache").rglob("*.safetensors"))  # nothing was trained on the way


def test_what_no_recipe_of_the_zoo_gives_is_trained_at_first_use(bare_zoo: Path) -> None:
    grid, waiting = opened(find("transfer_defense_gan"), {"n": 4, "source": "bundled"}, Progress(), bare_zoo)
    assert len(grid.cells) == 12 and not waiting


def test_all_goes_on_where_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {name: find(name) for name in ("trades_mnist", "squeezing_mnist_targeted")}
    monkeypatch.setattr(command, "reproductions", lambda: chosen)
    given = ["all", "dry_run=true", "n=4", "source=bundled", f"results={tmp_path}"]
    assert main(given) == 0
    out, err = capsys.readouterr()
    assert "trades_mnist left out: trades_mnist needs weights=PATH" in err and "5 of 5 cells to do" in out
    assert main([*given, "sources=bundled"]) == 2  # a mistake, and not something missing
    assert "squeezing_mnist_targeted left out" in capsys.readouterr().err
    assert main(["all", "weights=it.pt"]) == 2 and "give its name" in capsys.readouterr().err


def test_certified_accuracy_of_a_smoothed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "it.yaml").write_text(
        "{data: mnist, models: [mnist_small], defenses: [none, randomized_smoothing], attacks: [fgsm],"
        " threats: [l2:1], n: 12, source: bundled}"
    )
    grid = Grid.open(str(tmp_path / "it.yaml"), {"results": str(tmp_path)}, Progress())
    settings, most = Certify(n0=20, n=200, alpha=0.01), 0.5 * float(stats.norm.ppf(0.01 ** (1 / 200)))
    radii = [0.0, 0.5, most + 1e-3]
    rows = list(certified_rows(grid, settings, radii, Progress()))
    assert [each["definition"]["radius"] for each in rows] == radii
    assert {each["definition"]["defense"] for each in rows} == {"randomized_smoothing"}
    model, images = grid.builder.build(grid.cells[-1].model), grid.images["mnist", None]
    found = torch.cat(
        [
            certify(
                model,
                images[part],
                images.labels[part],
                0.5,
                20,
                200,
                0.01,
                draws=Draws(0, images.ids[part]).stream("certified"),
            )
            for part in (slice(0, 10), slice(10, 12))
        ]
    )
    expected = [float((found >= radius).double().mean()) for radius in radii]
    assert [each["results"]["certified_accuracy"] for each in rows] == expected
    assert expected[0] >= 0.75 and expected[0] >= expected[1] > expected[2] == 0  # beyond what 200 draws can certify
    assert compare(Figure("it", {"radius": 0.5}, 50, figure="certified"), rows).here == 100 * expected[1]
    monkeypatch.setattr(certified, "certify", None)
    assert list(certified_rows(grid, settings, radii, Progress())) == rows  # kept, and not measured again
    with pytest.raises(TypeError):
        list(certified_rows(grid, Certify(n0=20, n=201, alpha=0.01), radii, Progress()))


def test_missing_weights_say_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trades_mnist"]) == 2
    assert "needs weights=PATH" in (error := capsys.readouterr().err) and "liuye6666" in error
    assert main(["trade_mnist"]) == 2 and "did you mean" in capsys.readouterr().err
    assert main(["list"]) == 0 and "nfm_mnist" in capsys.readouterr().out
