"""The table of `best` beside all attacks together: its arithmetic, its members, and nothing measured twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from benchmarks import ensemble as benchmark
from benchmarks._kept import Row, kept
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.defenses.adversarial_training import AdversarialTraining
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.spec import ModelSpec


def row(attack: str, robust: str, passes: int) -> Row:
    what = {"subject": "net", "weights": "w", "threat": "l0:5", "images": len(robust), "attack": attack}
    return {"what": what, "surroundings": {"hardware": "a machine"}, "robust": robust, "passes": passes}


def test_the_line_says_how_far_above_and_at_what_share_of_the_passes() -> None:
    cells = benchmark.line(row("best", "1101", 800), row("together", "0100", 8000))
    assert cells == ["net", "l0:5", "4", "75.0", "25.0", "+50.0", "200", "2000", "0.10"]
    older, alone = row("best", "1111", 9), row("best", "11", 9)
    text = benchmark.markdown([older, alone, row("best", "1101", 800), row("together", "0100", 8000)])
    assert text.count("| net |") == 1 and "| 75.0 | 25.0 | +50.0 |" in text and "Hardware: a machine." in text


@pytest.mark.parametrize("norm", benchmark.MEMBERS)
def test_every_member_knows_the_norm(norm: Norm) -> None:
    members = benchmark.Together().members(norm).values()
    assert len(members) >= 4 and all(norm in member.norms for member in members)
    assert any(ThreatModel.parse(ball).norm is norm for _, ball in benchmark.BALLS)


def test_what_is_kept_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measured(name: str, attack: str, threat: ThreatModel, images: int, device: str) -> Row:
        asked.append(attack)
        return {"robust": "10", "passes": 7}

    monkeypatch.setattr(benchmark, "measured", measured)
    words = ["--out", str(tmp_path), "--only", "l0 none", "--images", "2"]
    benchmark.main(words)
    benchmark.main(words)
    assert asked == ["best", "together"] and len(kept(tmp_path / "ensemble.jsonl")) == 2
    assert "| mnist/none | l0:5 | 2 | 50.0 | 50.0 |" in (tmp_path / "ensemble.md").read_text()


def test_all_together_leave_what_none_of_them_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {**benchmark.MEMBERS, Norm.LINF: (("fgsm", {}), ("pgd", {"steps": 3}))}
    monkeypatch.setattr(benchmark, "MEMBERS", members)
    threat = ThreatModel.parse("linf:0.1")
    together = benchmark.measured("mnist/none", "together", threat, 12, "cpu")["robust"]
    first = benchmark.measured("mnist/none", "fgsm", threat, 12, "cpu")["robust"]
    assert together.count("1") < first.count("1")
    assert all(one <= other for one, other in zip(together, first, strict=True))


def test_networks_that_are_no_zoo_s_are_trained_in_their_own_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained here: what would be is looked at."""
    asked: list[ModelSpec] = []

    def build(self: ModelBuilder, spec: ModelSpec) -> nn.Module:
        asked.append(spec)
        return nn.Linear(2, 2)

    monkeypatch.setattr(ModelBuilder, "build", build)
    for name, ball in benchmark.TRAINED.items():
        net = benchmark.network(name, "cpu")
        assert not any(weight.requires_grad for weight in net.parameters())
        recipe = asked.pop().recipe
        assert recipe is not None and recipe.schedule.epochs == 3
        assert isinstance(recipe.defense, AdversarialTraining) and recipe.defense.threat == ball
        assert ThreatModel.parse(ball).norm in {
            ThreatModel.parse(each).norm for of, each in benchmark.BALLS if of == name
        }
    benchmark.network("mnist/none", "cpu")
    assert not asked
