"""A grid and an audit on the pretended device: the CPU's rows and findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from robustbench_local.audit.checklist import audit_model
from robustbench_local.audit.effort import Effort
from robustbench_local.data.load import load_data
from robustbench_local.grids.run import run_grid
from robustbench_local.models.load import load_model
from robustbench_local.storage.row import Row
from tests.helpers.pretended_device import DEVICE, pretended

GRID = """
data: mnist
source: bundled
n: 12
models: ["zoo:mnist/none"]
defenses: [none, jpeg]
attacks: [fgsm, {pgd: {steps: 20}}, gaussian_noise, {transfer: {surrogates: "zoo:mnist/label_smoothing"}}]
threats: ["linf:0.4"]
save: x_adv
"""  # no image is robust: of those that are, the grid's own audit would make a longer run
QUICK = Effort(steps=4, queries=20, draws=5, probed=6, walked=6, few=6, random=8, eot=2, process=False)


def rows(folder: Path, device: str, *, attacks: Any = None) -> list[Row]:
    file = folder / "devices.yaml"
    file.write_text(GRID, encoding="utf-8")
    changes = {"device": device, "results": str(folder / device)} | ({} if attacks is None else {"attacks": attacks})
    return run_grid(file, **changes)


def figures(results: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, object]]:
    """All but the time, one by one."""
    for name, value in results.items():
        if isinstance(value, dict):
            yield from figures(value, f"{place}/{name}")
        elif isinstance(value, list):
            yield from figures({str(number): each for number, each in enumerate(value)}, f"{place}/{name}")
        elif name != "seconds":
            yield f"{place}/{name}", value


def test_a_grid_gives_the_cpus_rows(tmp_path: Path) -> None:
    host = rows(tmp_path, "cpu")
    with pretended():
        there = rows(tmp_path, DEVICE)
        kept = str(tmp_path / DEVICE / "devices")
        (again,) = rows(tmp_path, DEVICE, attacks=[{"replay": {"rows": kept}}])[:1]
    assert [row.key for row in there] == [row.key for row in host] and len(host) == 8
    for mine, theirs in zip(there, host, strict=True):
        assert mine.ok and theirs.ok, (mine, theirs)
        assert mine["environment"]["device"] == "a pretended accelerator" != theirs["environment"]["device"]
        assert dict(figures(mine.results)) == pytest.approx(dict(figures(theirs.results)), abs=1e-4, nan_ok=True)
    assert again.ok and again.results["robust_accuracy"] <= there[0].results["robust_accuracy"]


@pytest.mark.slow
def test_an_audit_finds_what_it_finds_on_the_cpu() -> None:
    x, y = load_data("mnist", n=24, source="bundled")
    settings: dict[str, Any] = dict(threat="linf:0.1", effort=QUICK, surrogates=("zoo:mnist/label_smoothing",))
    host = audit_model(load_model("zoo:mnist/none"), x, y, **settings)
    with pretended():
        there = audit_model(load_model("zoo:mnist/none", device=DEVICE), x.to(DEVICE), y.to(DEVICE), **settings)
    assert {each.check: each.status for each in there.findings} == {each.check: each.status for each in host.findings}
    assert len(host.findings) > 20 and not [each for each in there.findings if "died of" in each.evidence]
