"""An attack's version by norm and budget: what leaves figures as they were leaves their rows in their place."""

from __future__ import annotations

from pathlib import Path

from robustbench_local import run_grid
from robustbench_local.attacks.best import Best
from robustbench_local.attacks.one_pixel import OnePixel
from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.threat import Norm


def test_a_row_is_named_by_the_version_in_its_norm(tmp_path: Path) -> None:
    grid = tmp_path / "two.yaml"
    grid.write_text(
        "data: mnist\nmodels: zoo:mnist/none\nattacks: [{best: {steps: 2}}, {pgd: {steps: 1}}]\n"
        'threats: ["linf:0.1", "l2:1"]\nn: 2\nsource: bundled\n'
    )
    rows = run_grid(str(grid), results=str(tmp_path / "results"))
    named = {(row.attack, row.threat): row.definition["attack_version"] for row in rows}
    assert named["best", "linf:0.1"] == Best().version_in(Norm.LINF) == 6
    assert named["best", "l2:1"] == Best().version_in(Norm.L2) == 5
    assert Best().version_in(Norm.L1) == 8 and Best().version_in(Norm.L0) == 7
    assert {named["pgd", "linf:0.1"], named["pgd", "l2:1"]} == {PGD.version}
    again = run_grid(str(grid), results=str(tmp_path / "results"), dry_run=True)
    assert {row["status"] for row in again} == {"done"}


def test_a_row_is_named_by_the_version_in_its_budget(tmp_path: Path) -> None:
    grid = tmp_path / "budget.yaml"
    grid.write_text(
        "data: mnist\nmodels: zoo:mnist/none\nattacks: [one_pixel, {one_pixel: {population: 4}}]\n"
        'threats: ["l0:1"]\nn: 1\nsource: bundled\nbudget: 100\n'
    )
    rows = run_grid(str(grid), results=str(tmp_path / "results"))
    versions = [row.definition["attack_version"] for row in rows]
    assert (
        versions == [OnePixel().version_in(Norm.L0, 100), OnePixel.version] == [OnePixel.version + 1, OnePixel.version]
    )
    assert OnePixel().version_in(Norm.L0) == OnePixel.version
