"""All that is made of rows, but the page itself: text tables, JSON, model_info, plots, the command."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from robustbench_local.cli.main import main
from robustbench_local.core.errors import StoreError
from robustbench_local.core.escaping import shown, visible
from robustbench_local.report import export, render
from robustbench_local.report.corruption import corruption_tables
from robustbench_local.report.drawing import wrapped
from robustbench_local.report.latex import latex
from robustbench_local.report.plots import plots
from robustbench_local.report.plots_corruption import corruption_plots
from robustbench_local.report.plots_search import falling
from robustbench_local.report.results import Results
from robustbench_local.report.table import Table
from robustbench_local.report.write import write_report
from robustbench_local.storage.row import Row
from tests.helpers.rows import a_row, stored

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = '<script>alert(1)</script> a|b\n"c" \'\u202ed\u2066 $x_1^2$ %& \\input{/etc/passwd} [l](javascript:x) *e*'


def results_of(folder: Path, *made: tuple[Row, np.ndarray], **also: Any) -> Results:
    store = stored(folder, *made, **also)
    return Results.of([store.read(row["key"]) or row for row, _ in made], store)


def tables_of(results: Results) -> list[Table]:
    return results.tables()


def usual(folder: Path) -> Results:
    """Two data sets' worth of what occurs: ties, flags, a failed and a missing cell, a random model, hostile names."""
    return results_of(
        folder,
        a_row([1, 1, 0, 0], attack="fgsm"),
        a_row([0, 1, 1, 0], flags=["near_tie:2"]),
        a_row([1, 1, 1, 0], attack="fgsm", defense="trades"),
        a_row([1, 1, 1, 0], defense="trades"),
        a_row([1, 1, 1, 1], attack="fgsm", defense="jpeg"),
        a_row(None, defense="jpeg"),
        a_row([1, 1, 1, 1], attack="fgsm", defense="median"),
        a_row([[1, 0], [1, 1], [0, 0], [0, 1]], defense="noise", attack="square", access="scores"),
        a_row([1, 0, 0, 0], data="mnist", threat="l2:2", model=HOSTILE, defense=HOSTILE, attack="=cmd|' /C calc'!A0"),
    )


@pytest.mark.parametrize(
    ("name", "write"), [("table.md", render.markdown), ("table.csv", render.csv_text), ("table.tex", latex)]
)
def test_golden(name: str, write: Callable[[list[Table]], str], tmp_path: Path) -> None:
    """UPDATE_GOLDEN=1 writes the files anew: look at the difference before committing it."""
    text = write(tables_of(usual(tmp_path)))
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_hostile_names_stay_one_visible_line_of_one_cell(tmp_path: Path) -> None:
    made = tables_of(usual(tmp_path))
    text = render.markdown(made)
    assert "\u202e" not in text
    assert "\\u202e" in text.replace("\\\\", "\\")
    hostile = next(line for line in text.splitlines() if "alert" in line and line.startswith("|"))
    assert len(re.findall(r"(?<!\\)\|", hostile)) == 6  # 5 columns
    assert not re.search(r"(?<!\\)<script", text)
    assert not re.search(r"(?<!\\)\[l\\?\]\(", text)
    shown = latex(made)
    assert "\\input" not in shown
    assert r"\textbackslash{}input" in shown
    assert all(not field.startswith(("=", "+", "@")) for field in render.csv_text(made).replace('"', "").split(","))
    console = Console(width=200, record=True, file=(tmp_path / "terminal").open("w"))
    render.show(tables_of(results_of(tmp_path / "b", a_row([1, 0, 0, 1], defense="\x1b[31mred\x07"))), console)
    assert "\x1b[31m" not in console.export_text()


def test_visible_leaves_words_alone_and_shows_what_hides() -> None:
    assert visible("jpeg + trades, β = ½ 猫") == "jpeg + trades, β = ½ 猫"
    assert visible("a\u202eb\nc\u200bd\x00") == "a\\u202eb\\nc\\u200bd\\x00"


def test_latex_escapes_every_special_character() -> None:
    assert shown("a_b & 5 % $x$ #{}~^\\", "tex") == (
        r"a\_b \& 5 \% \$x\$ \#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_json_holds_every_figure_and_null_where_there_is_none(tmp_path: Path) -> None:
    record = json.loads(export.json_text(tables_of(usual(tmp_path))))
    fixed = record["tables"][0]
    lines = {line["defense"]["name"]: line for line in fixed["lines"]}
    assert lines["none"]["worst"] == [
        {"value": 0.25, "low": pytest.approx(0.0456, abs=1e-3), "high": pytest.approx(0.6994, abs=1e-3)}
    ]
    assert lines["jpeg"]["robust"][1] is None
    assert lines["jpeg"]["worst"] == [None]
    assert [lines[name]["rank"] for name in ("trades", "none")] == [[1, 2], [1, 2]]  # of four images
    assert lines["jpeg"]["rank"] is lines["median"]["rank"] is None
    assert lines["median"]["keys"][1] is None
    assert lines["none"]["flags"] == [[], ["near_tie:2"]]
    assert [table["random"] for table in record["tables"]] == [False, True, False]


def test_model_info_says_what_rows_know_and_claims_no_autoattack(tmp_path: Path) -> None:
    standard, rand = ({"variant": variant} for variant in ("standard", "rand"))
    results = results_of(
        tmp_path,
        a_row([1, 0, 0, 1], attack="autoattack", attack_settings=standard),
        a_row([1, 0, 0, 0]),
        a_row([1, 0, 0, 1], attack="autoattack", attack_settings=rand, threat="l2:0.5"),
        a_row([1, 0, 0, 1], threat="l1:12"),
    )
    files = {path: json.loads(text) for path, text in export.model_infos(tables_of(results))}
    assert sorted(files) == [
        "model_info/cifar10/L2/preact-small-none_0.5.json",
        "model_info/cifar10/Linf/preact-small-none_8-255.json",
    ]
    linf = files["model_info/cifar10/Linf/preact-small-none_8-255.json"]
    assert (linf["dataset"], linf["architecture"], linf["eps"]) == ("cifar10", "preact_small", "8/255")
    assert (linf["clean_acc"], linf["autoattack_acc"], linf["reported"]) == ("100.00", "50.00", "25.00")
    assert linf["unreliable"] is False
    assert files["model_info/cifar10/L2/preact-small-none_0.5.json"]["autoattack_acc"] is None


def test_model_info_is_of_most_images_and_tells_random_namesakes_apart(tmp_path: Path) -> None:
    results = results_of(
        tmp_path,
        a_row([1, 0], ids="0:2", attack="cw"),
        a_row([1, 0, 0, 0]),
        a_row([[1, 1], [0, 0], [1, 1], [1, 1]], weights_digest="r" * 64),
        a_row([[1, 0]], ids="0:1", attack="cw"),
    )
    files = {path: json.loads(text)["reported"] for path, text in export.model_infos(tables_of(results))}
    linf = "model_info/cifar10/Linf/preact-small-none_8-255"
    assert files == {f"{linf}.json": "25.00", f"{linf}_random.json": "75.00"}
    assert len([*export.model_infos(tables_of(results))]) == 2


def eps_rows(n: int = 24) -> list[tuple[Row, np.ndarray]]:
    def stands(k: int) -> list[int]:
        return [1] * k + [0] * (n - k)

    return [
        a_row(stands(k - less + more), ids=f"0:{n}", defense=defense, attack=attack, access=access, threat=threat)
        for threat, less in (("linf:4/255", 0), ("linf:8/255", 6))
        for defense, k in (("none", 8), ("trades", 16))
        for attack, access, more in (("pgd", "gradients", 0), ("square", "scores", 3))
    ]


def test_every_plot_that_rows_allow_is_drawn_and_is_the_same_at_every_run(tmp_path: Path) -> None:
    results = results_of(tmp_path, *eps_rows())
    made = plots(tables_of(results), results)
    kinds = [picture.name.rsplit("-", 1)[1] for picture in made]
    assert sorted(kinds) == sorted(["heat", "robust", "queries", "steps"] * 2 + ["eps"])  # "robust": clean-robust
    again = plots(tables_of(results)[:1], results)
    assert [picture.svg for picture in made[:3]] == [picture.svg for picture in again[:3]]
    for picture in made:
        root = ET.fromstring(picture.svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert picture.alt
        assert not re.search(r"(?:href|src)=['\"](?!#|data:)", picture.svg)
        assert "prefers-color-scheme:dark" in picture.svg


def test_curves_go_through_the_figures_of_the_rows(tmp_path: Path) -> None:
    clean = np.array([1, 1, 1, 1, 0], bool)
    robust = np.array([0, 1, 0, 0, 0], bool)
    x, y = falling(clean, robust, np.array([5, 100, 2, 5, 0]), 100)
    assert x.tolist() == [0, 2, 5, 5, 100]
    assert y.tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2])


def test_corruptions_have_a_section_and_a_curve_and_a_missing_cell_leaves_a_gap(tmp_path: Path) -> None:
    n, made = 24, []
    for defense in ("none", "trades"):
        for attack in ("fog", "snow"):
            for level in (1, 3, 5):
                bits = [1] * (n - 4 * level) + [0] * 4 * level
                failed = (defense, attack, level) == ("trades", "snow", 3)
                row, bits_ = a_row(
                    None if failed else bits,
                    ids=f"0:{n}",
                    attack=attack,
                    access="none",
                    threat="none",
                    defense=defense,
                    attack_settings={"severity": level},
                    corruption="CIFAR-10-C",
                )
                made.append((row, bits_))
    results = results_of(tmp_path, *made)
    (table,) = corruption_tables(results.rows)
    assert [line.accuracy(severity=3) is None for line in table.lines] == [False, True]
    (drawn,) = corruption_plots(table)  # of two corruptions no heat map
    assert drawn.name == "cifar10-test-24-CIFAR-10-C-severity"
    write_report(results, tmp_path / "out")
    assert (tmp_path / "out" / "plots" / f"{drawn.name}.svg").exists()
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "CIFAR-10-C" in text
    assert "a cell failed or is missing" in text
    assert ">50.0<" in text  # (20 + 12 + 4) / 72


def test_each_corruption_has_a_column_of_the_heat_map(tmp_path: Path) -> None:
    made = []
    for attack, stands in (("fog", 20), ("snow", 10), ("frost", 4)):
        row, bits = a_row(
            [1] * stands + [0] * (24 - stands),
            ids="0:24",
            attack=attack,
            access="none",
            threat="none",
            attack_settings={"severity": 3},
            corruption="CIFAR-10-C",
        )
        made.append((row, bits))
    (table,) = corruption_tables(results_of(tmp_path, *made).rows)
    (drawn,) = corruption_plots(table)  # of a single severity no curve
    assert drawn.name.endswith("corruptions")
    assert "undefended: frost, 16.7 %" in drawn.alt
    for text in ("fog", "snow", "frost", "83.3", "41.7", "16.7"):
        assert f">{text}<" in drawn.svg


def test_convergence_is_drawn_of_rows_that_tell_it_and_of_enough_images(tmp_path: Path) -> None:
    def with_trace(images: int, **about: Any) -> tuple[Row, np.ndarray]:
        row, bits = a_row([1] * 20 + [0] * 4, ids="0:24", **about)
        levels = {"low": [0.1, 0.2, 0.3], "median": [0.2, 0.4, 0.5], "high": [0.3, 0.7, 0.9]}
        row["results"]["trace"] = {"images": images, "steps": [1, 5, 10], **levels}
        return row, bits

    results = results_of(
        tmp_path,
        with_trace(20, attack="apgd"),
        with_trace(4, attack="apgd", defense="few"),
        with_trace(20, attack="one_pixel", access="scores"),
        a_row([1] * 24, ids="0:24", attack="pgd"),
    )
    (drawn,) = [picture for picture in plots(tables_of(results), results) if picture.name.endswith("convergence")]
    assert "of 2 attacks" in drawn.alt
    for text in ("apgd", "one_pixel", "generations", "steps", "undefended"):
        assert f">{text}<" in drawn.svg
    assert ">few<" not in drawn.svg
    assert ">pgd<" not in drawn.svg


def test_naive_attacks_and_those_judged_by_their_end_have_no_curve_over_steps(tmp_path: Path) -> None:
    stands = [1] * 12 + [0] * 12
    naive, bits = a_row(stands, ids="0:24", attack="mim", adaptive=False)
    results = results_of(
        tmp_path, a_row(stands, ids="0:24"), (naive, bits), a_row(stands, ids="0:24", attack="bim", count="last")
    )
    (drawn,) = [picture for picture in plots(tables_of(results), results) if picture.name.endswith("steps")]
    assert ">pgd<" in drawn.svg
    assert not re.search(r">[^<]*(mim|bim)[^<]*<", drawn.svg)


def test_long_labels_are_broken_where_they_can_be() -> None:
    assert wrapped("apgd (loss=ce)", 13) == "apgd\n(loss=ce)"
    assert wrapped("apgd (loss=ce)", 14) == "apgd (loss=ce)"
    assert wrapped("pgd (step_size=None, loss=multi_targeted)", 14) == "pgd\n(step_size=\nNone, loss=\nmulti_…"


def test_tables_of_few_images_have_no_plots(tmp_path: Path) -> None:
    results = results_of(tmp_path, a_row([1, 0, 0, 1]), a_row([1, 0, 0, 1], defense="b"))
    assert plots(tables_of(results), results) == []


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    results = usual(tmp_path / "rows")
    for name in ("a", "b"):
        write_report(results, tmp_path / name, "title")
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))}
        for name in ("a", "b")
    )
    assert {str(path) for path in one} >= {"index.html", "table.md", "table.csv", "table.tex", "table.json"}
    assert one == two


def test_a_folder_of_folders_is_read_and_a_cell_counts_once(tmp_path: Path) -> None:
    stored(tmp_path / "a", a_row([1, 0, 0, 1]), a_row(None, attack="fgsm"))
    stored(tmp_path / "b", a_row([1, 0, 0, 1]), a_row([1, 1, 0, 1], attack="fgsm"))
    for folders in ([tmp_path], [tmp_path / "a", tmp_path / "b"]):
        results = Results.read(folders)
        assert sorted(row["status"] for row in results.rows) == ["ok", "ok"]  # a good row before a failed one
    with pytest.raises(StoreError, match=r"nothing.* is not there: name a folder that a grid wrote"):
        Results.read([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="holds no rows"):
        Results.read([tmp_path / "empty"])


def test_a_cell_counts_in_its_latest_version(tmp_path: Path) -> None:
    def versions(*rows: tuple[Row, np.ndarray]) -> list[tuple[object, object]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        stored(folder, *rows)
        kept = [row["definition"] for row in Results.read([folder]).rows]
        return sorted((row["defense_version"], row["attack_version"]) for row in kept)

    old, stands, falls = a_row([1, 1, 1, 0]), [1, 1, 1, 1], [0, 0, 0, 0]
    assert versions(old, a_row(stands, defense_version=2), a_row(falls, attack="square")) == [(1, 1), (2, 1)]
    assert versions(old, a_row(stands, attack_version=10), a_row(stands, attack_version=9)) == [(1, 10)]
    assert versions(old, a_row(None, attack_version=2)) == [(1, 1), (1, 2)]  # what failed replaces nothing
    chain = {"defense": "jpeg + adversarial_training"}
    assert versions(*(a_row(falls, defense_version=each, **chain) for each in ([1, 2], [2, 1]))) == [([2, 1], 1)]


def test_each_grid_of_a_folder_of_grids_keeps_its_own_attacks_and_tables(tmp_path: Path) -> None:
    """One grid's attacks must not make holes in the other's table, though images, threat and a model are the same."""
    n = [1] * 20 + [0] * 4
    stored(tmp_path / "a", a_row(n, ids="0:24"), a_row(n, ids="0:24", defense="jpeg"))
    stored(tmp_path / "b", a_row(n, ids="0:24", attack="square", access="scores"), a_row(n, ids="0:24"))
    results = Results.read([tmp_path])
    assert len(results.rows) == 3
    one, two = results.tables()
    assert (one.grid, two.grid) == ("a", "b")
    assert [len(table.attacks) for table in (one, two)] == [1, 2]
    assert all(line.worst[-1] for table in (one, two) for line in table.lines)
    assert "cifar10 test, linf:8/255, 24 images, b" in render.markdown([one, two])
    write_report(results, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {path.name[:2] for path in (tmp_path / "out" / "plots").iterdir()} == {"a-", "b-"}
    (merged,) = Results.read([tmp_path / "a", tmp_path / "b"]).tables()  # parts of one grid
    assert (merged.grid, len(merged.attacks)) == ("", 2)


def test_the_report_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "a", a_row([1, 0, 0, 1]))
    stored(tmp_path / "b", a_row([1, 1, 0, 1], attack="fgsm"))
    assert main(["report", str(tmp_path / "a")]) == 0
    assert "50.0" in capsys.readouterr().out
    assert (tmp_path / "a" / "index.html").exists()
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "--into" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--title", "All of it"]) == 0
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "All of it" in text
    assert json.loads((tmp_path / "table.json").read_text())["tables"][0]["lines"][0]["worst"][0]["value"] == 0.5
