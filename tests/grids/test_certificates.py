"""certify=crown in a grid: a certificate is a cell of its own, and one that an attack contradicts is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.bounds.certify import Certificate, certify
from robustbench_local.cli.main import main
from robustbench_local.core.errors import BoundsError, ConfigError, ContradictionError
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import ThreatModel
from robustbench_local.defenses import randomized_smoothing
from robustbench_local.grids import certificates, certifying
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.preview import preview
from robustbench_local.grids.run import run_grid
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store

MODELS = """
import robustbench_local as rbl
from torch import nn

def net():
    return rbl.load_model("zoo:mnist/adversarial_training")

class Unreadable(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x).erf()

unreadable = Unreadable
"""
GRID = """
data: mnist
source: bundled
n: 6
models: ["toys:net"]
attacks: [fgsm, {pgd: {steps: 3}}, {fog: {severity: 1}}]
threats: ["linf:0.02", "linf:0.05"]
device: cpu
pictures: 0
certify: ibp
"""


class Record(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toys.py").write_text(MODELS)
    (tmp_path / "toy.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "toys", raising=False)
    return tmp_path


def certified(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.certifies]


def test_each_model_and_threat_has_one_certificate_that_says_what_certify_says(folder: Path) -> None:
    rows = run_grid("toy.yaml", certify="crown", threats=["linf:0.02"])
    (row,) = certified(rows)
    x, y = rbl.load_data("mnist", n=6, source="bundled")
    wanted = certify(rbl.load_model("zoo:mnist/adversarial_training"), x, y, "linf:0.02")
    found = Store(folder / "results/toy").arrays(row.key)
    assert found["certified"].tolist() == wanted.certified.tolist() and found["ids"].tolist() == list(range(6))
    margins = torch.from_numpy(found["margin"]).double()
    assert (margins <= wanted.margins).all() and torch.allclose(margins, wanted.margins, rtol=1e-6)
    assert row["results"]["certified_accuracy"] == float(wanted.certified.double().mean()) > 0
    assert row["results"]["confidence"] is None and row["results"]["seconds"] > 0 and row["environment"]["device"]
    assert rbl.load_results(folder / "results/toy").to_frame()["certified"].dropna().nunique() == 1
    assert "certified" in (folder / "results/toy/table.csv").read_text().splitlines()[0]


def test_it_is_a_cell_that_is_done_once_and_the_attacks_are_those_of_a_grid_without_it(folder: Path) -> None:
    before = run_grid("toy.yaml", certify=None)
    assert not certified(before) and "certified" not in (folder / "results/toy/table.md").read_text()
    rows = run_grid("toy.yaml")
    assert [row.threat for row in certified(rows)] == ["linf:0.02", "linf:0.05"]  # and none of the corruption
    assert {row.key for row in before} < {row.key for row in rows}
    places = [folder / "results/toy/rows" / f"{row.key}.json" for row in rows]
    written = [place.stat().st_mtime_ns for place in places]
    progress = Record()
    assert [row.key for row in run_grid("toy.yaml", progress=progress, save="scores")[-2:]] == [
        row.key for row in rows[-2:]
    ]
    assert sum("certify ibp" in line and "done before" in line for line in progress.lines) == 2
    assert [place.stat().st_mtime_ns for place in places][-2:] == written[-2:]


def test_a_dry_run_prices_it_and_says_what_is_done_or_has_no_bound(folder: Path) -> None:
    asked: dict[str, Any] = {"models": ["toys:net", "toys:unreadable"], "threats": ["linf:0.02"]}
    first = preview(Grid.open("toy.yaml", asked, Progress()))
    run_grid("toy.yaml", models=["toys:net"], threats=["linf:0.02"])
    then = preview(Grid.open("toy.yaml", asked, Progress()))
    own = [[row for row in rows if "certify ibp linf:0.02" in row["cell"]] for rows in (first, then)]
    assert [[row["status"] for row in rows] for rows in own] == [["to do", "left out"], ["done", "left out"]]
    assert own[0][0]["seconds"] > 0 and own[1][0]["seconds"] == 0 and own[0][0]["forwards"] == 0


def test_its_name_says_all_that_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(**overrides: Any) -> set[str]:
        grid = Grid.open("toy.yaml", {"threats": ["linf:0.02"], **overrides}, Progress())
        weights = overrides.pop("digest", "a" * 64)
        return {grid.task(each, weights).key for each in grid.cells if isinstance(each.attack, certifying.Certifying)}

    usual = keys()
    assert len(usual) == 1 and keys(seeds=3, eot=2, budget=50, count="last", targets="random") == usual
    for other in ({"certify": "crown"}, {"threats": ["l2:0.02"]}, {"n": 5}, {"attack_under": "fog:1"}):
        assert not keys(**other) & usual
    grid = Grid.open("toy.yaml", {"threats": ["linf:0.02"]}, Progress())
    (one,) = (each for each in grid.cells if isinstance(each.attack, certifying.Certifying))
    assert grid.task(one, "b" * 64).key not in usual
    within = keys(certify="branch_and_bound")
    monkeypatch.setattr(certifying, "SECONDS", 1.0)
    assert keys() == usual and not keys(certify="branch_and_bound") & within  # what it finds hangs on its time
    monkeypatch.setattr(certifying.Certifying, "version", 99)
    assert not keys() & usual


def test_what_certify_does_not_know_is_said_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"certify of grid \"toy\" is 'crwn' .* it must be ibp"):
        run_grid("toy.yaml", certify="crwn")


def test_where_no_bound_is_known_the_run_goes_well_and_the_page_says_why(folder: Path) -> None:
    rows = run_grid("toy.yaml", models=["toys:unreadable"], threats=["linf:0.02", "l0:1"], attacks=["noise"])
    assert all(row.left_out for row in certified(rows)) and len(certified(rows)) == 2
    for name in ("table.md", "index.html"):
        said = (folder / "results/toy" / name).read_text()
        assert "no bound is known of operation" in said and "erf" in said
    asked = ["run", "toy.yaml", "models=[toys:unreadable]", "threats=[linf:0.02]", "attacks=[noise]"]
    assert main(asked) == 0


def boastful(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, method: str) -> Certificate:
    """The broken twin: it certifies whatever the model answers rightly."""
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return Certificate(torch.where(right, 0.25, -1.0).double())


def test_an_attack_that_breaks_what_is_certified_is_an_error_and_all_rows_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {"attacks": ["pgd"], "models": ["zoo:mnist/none"], "threats": ["linf:0.3"]}
    (honest,) = certified(run_grid("toy.yaml", **asked))
    assert honest["results"]["certified_accuracy"] == 0
    monkeypatch.setattr(certificates, "certify", boastful)
    monkeypatch.setattr(certifying.Certifying, "version", 99)
    with pytest.raises(ContradictionError) as error:
        run_grid("toy.yaml", **asked)
    said = str(error.value)
    for part in ("zoo:mnist/none / none on mnist", "pgd within linf:0.3", "ibp certifies", "margin at least 0.25"):
        assert part in said
    kept = Store(folder / "results/toy").every()
    assert len(certified(kept)) == 2 and len(kept) == 3 and all(row.ok for row in kept)
    assert "CONTRADICTION" in (folder / "results/toy/table.md").read_text()
    assert main(["run", "toy.yaml", "attacks=[pgd]", "models=[zoo:mnist/none]", "threats=[linf:0.3]"]) == 1
    assert "error: zoo:mnist/none / none on mnist" in " ".join(capsys.readouterr().err.split())


def test_evaluate_shows_the_bracket(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "evaluate zoo:mnist/none --data mnist --threat linf:0.001 --suite quick --n 4 --certify crown pictures=0"
    assert main([*asked.split(), "attacks=[fgsm]"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "clean 100.0 % certified 100.0 %, robust at most 100.0 % (51.0-100) report:" in said


def test_a_verdict_holds_what_is_certified() -> None:
    x, y = rbl.load_data("mnist", n=4, source="bundled")
    model = rbl.load_model("zoo:mnist/none")
    one = rbl.evaluate(model, x, y, "fgsm", "linf:0.001", certify="crown")
    assert one.certified is not None and one.certified.all() and one.confidence is None
    assert "certified 100.0 %, robust at most 100.0 % of 4 images" in str(one)
    several = rbl.evaluate(model, x, y, attacks=["fgsm", "fog"], threats=["linf:0.001"], certify="crown")
    share = several.certified("linf:0.001")
    assert share is not None and share.value == 1 and "certified 100.0 % (" in repr(several)
    assert several["fog", "none"].certified is None
    assert rbl.evaluate(model, x, y, "fgsm", "linf:0.001").certified is None
    with pytest.warns(UserWarning, match="not certified within l0:1: no bound is known"):
        assert rbl.evaluate(model, x, y, "noise", "l0:1", certify="crown").certified is None


def test_and_one_that_contradicts_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rbl.load_data("mnist", n=4, source="bundled")
    model = rbl.load_model("zoo:mnist/none")
    honest = rbl.evaluate(model, x, y, "pgd", "linf:0.3", certify="ibp", steps=10)
    assert honest.certified is not None and not honest.certified.any() and not honest.robust.all()
    monkeypatch.setattr(certificates, "certify", boastful)
    with pytest.raises(ContradictionError, match=r"pgd within linf:0\.3 breaks \d images? that ibp certifies"):
        rbl.evaluate(model, x, y, "pgd", "linf:0.3", certify="ibp", steps=10)


def test_a_smoothed_model_certifies_itself_by_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomized_smoothing, "CERTIFIED", 100)
    x, y = rbl.load_data("mnist", n=3, source="bundled")
    model = rbl.load_model("zoo:mnist/smoothing")
    assert isinstance(model, randomized_smoothing.Smoothed)
    ids = torch.arange(3)
    found = certificates.certificate(model, _Some(x, y, ids), ThreatModel.parse("l2:0.3"), "crown")
    assert found.radius is not None and found.margin is None and found.draws == 100
    assert found.confidence == pytest.approx(1 - model.alpha) and found.certified.equal(found.radius > 0.3)
    assert found.certified.any()
    again = certificates.certificate(model, _Some(x[1:], y[1:], ids[1:]), ThreatModel.parse("l2:0.3"), "ibp")
    assert again.radius is not None and torch.equal(again.radius, found.radius[1:])
    beyond = certificates.certificate(model, _Some(x, y, ids), ThreatModel.parse("l2:5"), "crown")
    assert not beyond.certified.any()
    with pytest.raises(BoundsError, match="it answers at random"):
        certificates.certificate(model, _Some(x, y, ids), ThreatModel.parse("linf:0.01"), "crown")


class _Some:
    def __init__(self, x: Tensor, labels: Tensor, ids: Tensor) -> None:
        self.x, self.labels, self.ids = x, labels, ids

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.x[rows]


@pytest.mark.slow
def test_other_processes_certify_as_this_one_does(folder: Path) -> None:
    here = certified(run_grid("toy.yaml", results="here"))
    there = certified(run_grid("toy.yaml", results="there", executor="local", workers=2))
    assert [row.key for row in here] == [row.key for row in there] and len(here) == 2
    stores = Store(folder / "here/toy"), Store(folder / "there/toy")
    for row in here:
        one, other = (store.arrays(row.key) for store in stores)
        assert all((one[name] == other[name]).all() for name in one)
