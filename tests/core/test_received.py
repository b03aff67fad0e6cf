"""Every image that a model receives is on an account: the attack's, its preparing's, the checks' or the judge's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import find_attack
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended, Deployed, Preprocess
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.grids.run import run_grid
from robustbench_local.storage.row import Row

N = 12
X = Draws(11, torch.arange(N)).uniform(1, 8, 8)


class Counting(nn.Module):
    """Linear, and keeps how many images each call brought."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.scale = scale
        self.weights = nn.Parameter(torch.sin(torch.arange(256.0)).view(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        out: Tensor = (self.scale * x).flatten(1) @ self.weights
        return out


class Noisy(Defended):
    stochastic = True

    def __init__(self) -> None:
        super().__init__()
        self.net = Counting()
        self.calls = self.net.calls

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        out: Tensor = self.net(x + 0.1 * draws.normal(*x.shape[1:]))
        return out


class Rounded(Preprocess):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (4 * x).round() / 4


class Random(Counting):
    """Noise of the global generator, of which it says nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(len(x), 4)


def deployed() -> nn.Module:
    net = Counting()
    model = Deployed(net, [Rounded()])
    model.calls = net.calls  # type: ignore[assignment]
    return model


MODELS: dict[str, Any] = {"plain": Counting, "noisy": Noisy, "steps": deployed, "stranger": Random}
ATTACKS: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "pgd": {"steps": 3, "restarts": 2},
    "square": {"steps": 10},
    "deepfool": {"steps": 3},
    "fog": {},
}


def told(verdict: Verdict) -> int:
    both = int(verdict.forwards.sum()) + verdict.prepared_forwards
    return both + verdict.checked_forwards + verdict.judged_forwards


def labels(model: nn.Module) -> Tensor:
    return (X.flatten(1) @ Counting().weights).argmax(1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("budget", [None, 3, 60])
def test_what_is_told_is_what_is_received(name: str, attack: str, budget: int | None) -> None:
    model, found = MODELS[name](), find_attack(attack, ATTACKS[attack])
    threat = "none" if attack == "fog" else "l2:0.5" if found.minimises else "linf:0.05"
    verdict = evaluate(model, X, labels(model), found, threat, eot=2, draws=3, budget=budget, allow_chance=True)
    assert told(verdict) == sum(model.calls)
    rounds = 3 if verdict.bits is not None else 1
    worth = 3 * N * 2 if found.access is Access.GRADIENTS and name in ("noisy", "steps", "stranger") else 0
    assert verdict.judged_forwards <= 3 * N * rounds + worth + N * (name == "stranger") + 1  # the number of classes
    if budget is not None:
        assert int(verdict.forwards.sum()) + verdict.checked_forwards <= N * budget
        assert int(verdict.forwards.max()) + Judge(budget=budget).checks <= budget
        assert ("unchecked" in verdict.flags) == (budget < 8)


@pytest.mark.parametrize("batch_size", [None, 1, 5])
@pytest.mark.parametrize("n", [1, 8, 12])
def test_checks_go_by_batch_size_and_ask_no_more_images_than_are_judged(n: int, batch_size: int | None) -> None:
    """Eight images under FGSM were 416 that the model received."""
    model = Counting()
    verdict = evaluate(model, X[:n], labels(model)[:n], "fgsm", "linf:0.05", batch_size=batch_size)
    assert max(model.calls) <= (batch_size or n)
    checked = min(n, batch_size or n)
    assert verdict.checked_forwards == 5 * checked  # four repeats, and one at the end
    assert sum(model.calls) == told(verdict) <= 6 * checked + 4 * n


def test_verdicts_that_share_what_is_known_check_once_and_see_the_same() -> None:
    model, known = Counting(), AnswerCache()

    class Some:
        labels, ids = labels(model), torch.arange(N)

        def __len__(self) -> int:
            return N

        def __getitem__(self, rows: slice | Tensor) -> Tensor:
            return X[rows]

    attacks: list[Attack] = [find_attack(name) for name in ("fgsm", "noise", "fgsm")]
    ball = ThreatModel.parse("linf:0.05")
    shared = [Judge(allow_chance=False)(model, Some(), attack, ball, known=known) for attack in attacks]
    assert [verdict.checked_forwards for verdict in shared] == [5 * N, N, N]
    assert sum(map(told, shared)) == sum(model.calls)
    alone = Judge(allow_chance=False)(Counting(), Some(), attacks[0], ball)
    for name in ("robust", "x_adv", "clean_scores", "scores"):
        assert torch.equal(getattr(shared[2], name), getattr(alone, name))


TOYS = """
from torch import Tensor, nn
from robustbench_local import load_model
CALLS = []
class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = load_model("zoo:mnist/none")
    def forward(self, x):
        CALLS.append(len(x))
        return self.net(x)
"""


@pytest.mark.parametrize("budget", [None, 20])
def test_a_grids_rows_tell_all_that_its_model_received(
    budget: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "receivers.py").write_text(TOYS)
    monkeypatch.delitem(sys.modules, "receivers", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("robustbench_local.grids.run.write_report", lambda *_: None)
    monkeypatch.setattr(
        "robustbench_local.grids.bench.audit_and_keep", lambda *_: []
    )  # the audit's attacks are its own
    grid: dict[str, Any] = {"data": "mnist", "n": 12, "models": ["receivers:Counted"], "defenses": ["none"]}
    grid |= {"threats": ["linf:0.1"], "attacks": ["fgsm", "noise", {"square": {"steps": 20}}], "budget": budget}
    grid |= {"pictures": 0}  # drawing them asks some more, which is no row's
    rows: list[Row] = run_grid("quickstart", source="bundled", device="cpu", **grid)
    import receivers  # type: ignore[import-not-found]

    total = 0
    for row in rows:
        results = row["results"]
        total += round(results["forwards_mean"] * 12) + results["checked_forwards"] + results["judged_forwards"]
    assert total == sum(receivers.CALLS)
