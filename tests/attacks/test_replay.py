"""Replay: what rows kept is found again by its pixels, projected, and tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.replay import Kept, Replay
from robustbench_local.core.access import Access
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.data.load import open_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.grids.run import run_grid
from robustbench_local.storage.store import Store
from tests.helpers.rows import a_row, stored

LINF = ThreatModel.parse("linf:0.2")


class Bright(nn.Module):
    """Class 1 where the first pixel is brighter than the level; nothing to differentiate."""

    def __init__(self, level: float = 0.5) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        score = (x[:, 0, 0, 0] - self.level).detach()
        return torch.stack([torch.zeros_like(score), score], 1)


def images(count: int = 12, channels: int = 1) -> Tensors:
    x = torch.rand(count, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    x[:, :, 0, 0] = 0.4
    x[:, :, 2] = x[:, :, 2].round()
    return Tensors(x, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def keep(folder: Path, x: Tensor, x_adv: Tensor, robust: int = 6, attack: str = "pgd") -> None:
    row, bits = a_row([1] * robust + [0] * (len(x) - robust), attack=attack)
    stored(folder, (row, bits), x_adv=np.asarray(x_adv), fingerprint=np.asarray(fingerprint(x)))


def brightened(x: Tensor, by: Tensor | float) -> Tensor:
    made = x.clone()
    made[:, :, 0, 0] += by
    return made


def test_images_come_back_in_any_order_and_company(tmp_path: Path) -> None:
    data = images()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))[:8]  # a selection, elsewhere numbered
    made = brightened(data.x, torch.where(torch.arange(12) % 2 == 0, 0.15, 0.05)[:, None])
    keep(tmp_path / "grid", data.x[order], made[order])
    kept = torch.zeros(12, dtype=torch.bool).index_fill(0, order, True)
    whole = evaluate(Bright(), data.x, data.labels, Replay(rows=str(tmp_path)), LINF)
    assert torch.equal(~whole.robust, kept & (torch.arange(12) % 2 == 0))
    assert torch.equal(whole.x_adv[kept], made[kept]) and torch.equal(whole.x_adv[~kept], data.x[~kept])
    assert torch.equal(whole.notes["replayed"] == 1, kept)
    assert torch.equal(whole.forwards, kept.long()) and not whole.backwards.any() and whole.prepared_forwards == 0
    for precision in ("float32", "float64"):
        for size in (1, 5):
            judge = Judge(batch_size=size, precision=precision)
            again = judge(Bright(), data, Replay(rows=str(tmp_path / "grid")), LINF)
            assert torch.equal(again.robust, whole.robust)
            assert torch.equal(again.x_adv, whole.x_adv.to(again.x_adv))


def test_a_pixel_changed_is_another_image(tmp_path: Path) -> None:
    data = images()
    keep(tmp_path, data.x, brightened(data.x, 0.15))
    other = data.x.clone()
    other[:6, 0, 1, 1] += 1e-6
    verdict = evaluate(Bright(), other, data.labels, Replay(rows=str(tmp_path)), LINF)
    assert verdict.robust.tolist() == [True] * 6 + [False] * 6


def test_the_best_of_several_rows_is_kept_and_the_strongest_row_goes_first(tmp_path: Path) -> None:
    data = images()
    first, second = torch.arange(12) < 4, torch.arange(12) >= 4
    keep(tmp_path / "one", data.x, brightened(data.x, torch.where(first, 0.15, 0.0)[:, None]), robust=7)
    keep(tmp_path / "two", data.x, brightened(data.x, torch.where(second, 0.15, 0.0)[:, None]), robust=4)
    keep(tmp_path / "two", data.x, brightened(data.x, 0.2), robust=0, attack="replay")
    attack = Replay(rows=str(tmp_path))
    verdict = evaluate(Bright(), data.x, data.labels, attack, LINF)
    assert not verdict.robust.any() and (verdict.notes["replayed"] == 2).all()
    assert torch.equal(verdict.forwards, torch.where(first, 2, 1))  # 8 were broken by row b, which was asked first
    assert attack.cost(2) == (2, 0)
    missed = evaluate(Bright(0.99), data.x, data.labels, attack, LINF)
    assert missed.robust.all() and (missed.forwards == attack.cost(2)[0]).all()
    last = evaluate(Bright(), data.x, data.labels, attack, LINF, count="last")
    assert not last.robust.any()


@pytest.mark.parametrize("threat", ["linf:0.12", "l2:0.2", "l1:0.3", "l0:1", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_replayed_is_projected(tmp_path: Path, threat: str, channels: int) -> None:
    data, ball = images(channels=channels), ThreatModel.parse(threat)
    before = data.x.clone()
    far = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(2))
    far[:, :, 0, 0] = 1.0
    keep(tmp_path, data.x, far)
    verdict = evaluate(Bright(), data.x, data.labels, Replay(rows=str(tmp_path)), ball)
    assert torch.equal(data.x, before) and verdict.flags == ()
    assert ball.contains(verdict.x_adv, data.x).all()
    assert torch.allclose(verdict.x_adv, ball.project(far, data.x))
    if threat in ("linf:0.12", "none"):
        assert not verdict.robust.any()


def test_broken_twins_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a projection nothing in a smaller ball is broken; with fingerprints of nothing all images are one."""
    data = images()
    by = torch.where(torch.arange(12) < 6, 0.15, -0.05)[:, None]
    keep(tmp_path, data.x, brightened(data.x, by) + 0.1)
    small = ThreatModel.parse("linf:0.2")
    attack = Replay(rows=str(tmp_path))
    assert evaluate(Bright(), data.x, data.labels, attack, small).robust_accuracy == 0.5
    with monkeypatch.context() as patch:
        patch.setattr(ThreatModel, "project", lambda self, x_adv, x: x_adv)
        assert evaluate(Bright(), data.x, data.labels, attack, small).robust.all()
    same = fingerprint(images().x[:1])
    monkeypatch.setattr("robustbench_local.attacks.replay.fingerprint", lambda x: same.expand(len(x)))
    assert evaluate(Bright(), data.x, data.labels, attack, small).robust_accuracy == 0.0


def test_towards_a_target(tmp_path: Path) -> None:
    data = images()
    keep(tmp_path, data.x, brightened(data.x, 0.15))
    goal = torch.ones(12, dtype=torch.int64)
    assert not evaluate(Bright(), data.x, data.labels, Replay(rows=str(tmp_path)), LINF, targets=goal).robust.any()


def test_nothing_to_replay_is_said(tmp_path: Path) -> None:
    assert Replay.access is Kept.access is Access.GRADIENTS  # kept images may come from any attack
    data = images()
    with pytest.raises(ConfigError, match="rows is empty"):
        Replay()
    with pytest.raises(ConfigError, match="save=x_adv"):
        evaluate(Bright(), data.x, data.labels, Replay(rows=str(tmp_path / "nowhere")), LINF)


GRID = """
data: mnist
source: bundled
n: 40
models: zoo:mnist/none
attacks: [fgsm, {pgd: {steps: 5}}]
threats: ["linf:0.2"]
device: cpu
save: x_adv
"""


def test_a_grid_replays_what_another_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    fgsm, pgd = run_grid("first.yaml")
    replay: dict[str, Any] = {"attacks": [{"replay": {"rows": "results/first"}}]}
    (again,) = run_grid("first.yaml", ids="10:40", n=None, **replay)
    arrays = [Store(Path("results/first")).arrays(row["key"]) for row in (fgsm, pgd, again)]
    both = arrays[0]["robust"] & arrays[1]["robust"]
    assert arrays[2]["robust"].tolist() == both[10:].tolist() and not both.all()
    assert again["results"]["notes"]["replayed"] == 2
    (same,) = run_grid("first.yaml", ids="10:40", n=None, **replay)
    assert same == again  # a replay of one's own replay is no news
    run_grid("first.yaml", attacks=["noise"])
    (more,) = run_grid("first.yaml", ids="10:40", n=None, **replay)
    assert more["key"] != again["key"] and more["results"]["notes"]["replayed"] == 3
    clean = open_data("mnist", source="bundled", n=40)
    assert torch.equal(torch.from_numpy(arrays[0]["fingerprint"]), fingerprint(clean[:]))
