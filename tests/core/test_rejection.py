"""What a rejection counts: of abstention, of detection; on planted models whose robustness is known by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.core import queries
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.defense import Defended, Deployed, Rejection, rejection, undefended
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.training import NoTraining
from robustbench_local.core.verdict import Verdict
from robustbench_local.defenses.jpeg import JPEG
from robustbench_local.defenses.multi_jpeg import MultiJPEG
from robustbench_local.evaluation import search
from robustbench_local.evaluation.preflight import UndeclaredRandomModel
from robustbench_local.metrics.detection import roc_auc
from robustbench_local.metrics.summary import summarise

CORNER = 0.2  # a - b / 2 above this is rejected
EPS = 0.12
SEED = 1  # one from which PGD finds the way around every corner


class Reader(nn.Module):
    """Class 1 where the first pixel is above 1/2, otherwise 0; never 2."""

    def forward(self, x: Tensor) -> Tensor:
        a = x.flatten(1)[:, 0] - 0.5
        return 20 * torch.stack([-a, a, -1 - a.abs()], 1)


class Gate(Defended):
    """A Reader that rejects where the first pixel is too bright for the second."""

    rejects = Rejection.DETECTION

    def __init__(self, kind: Rejection = Rejection.DETECTION, shift: float = 0.0) -> None:
        super().__init__()
        self.net, self.rejects, self.shift = Reader(), kind, shift

    def score(self, x: Tensor, draws: Draws | None) -> Tensor:
        a, b = x.flatten(1)[:, :2].T
        score: Tensor = a - b / 2 - CORNER + self.shift
        return score

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = self.net(x)
        return torch.cat([logits, (logits.amax(1) + 20 * self.score(x, draws))[:, None]], 1)

    def undefended(self) -> nn.Module:
        return self.net


class Shaky(Gate):
    """Rejects any image, whatever it is, on three draws of ten."""

    stochastic = True

    def score(self, x: Tensor, draws: Draws | None) -> Tensor:
        assert draws is not None
        return torch.where(draws.uniform() < 0.3, 1.0, -1.0) + 0 * x.sum((1, 2, 3))


def plane(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images of two pixels (a, b) of class 0, of which the Gate rejects none; none near any border at EPS."""
    a, b = torch.meshgrid(torch.arange(0.3, 0.48, 0.02), torch.arange(0.25, 0.7, 0.02), indexing="ij")
    a, b = a.flatten().to(dtype), b.flatten().to(dtype)
    clear = ((a + EPS - 0.5).abs() > 0.005) & ((b + EPS - 0.6).abs() > 0.005)
    keep = clear & (a - b / 2 < CORNER - 0.01)
    x = torch.stack([a, b], 1)[keep].view(-1, 1, 1, 2)
    return x, torch.zeros(len(x), dtype=torch.int64)


def is_robust(x: Tensor) -> Tensor:
    """(N,) bool: nobody reaches a' >= 1/2 with a' - b' / 2 <= CORNER within EPS."""
    a, b = x.flatten(1).T
    robust: Tensor = (a + EPS < 0.5) | (b + EPS < 0.6)
    return robust


def detection(verdict: Verdict) -> dict[str, Any]:
    found: dict[str, Any] = summarise(verdict, "012")["detector"]
    return found


def judged(attack: str = "pgd", model: nn.Module | None = None, **settings: Any) -> Verdict:
    x, y = plane(torch.float64 if settings.get("precision") == "float64" else torch.float32)
    return rbl.evaluate(model or Gate(), x, y, attack, f"linf:{EPS}", seed=SEED, **settings)


GRADIENT = [
    ("pgd", {"loss": "ce"}),
    ("pgd", {"loss": "margin"}),
    ("pgd", {"loss": "dlr"}),
    ("pgd", {"loss": "probability_margin"}),
    ("pgd", {"loss": "multi_targeted", "restarts": 2}),
    ("pgd", {"loss": "margin", "precision": "float64"}),
    ("pgd", {"loss": "margin", "count": "last", "steps": 200}),
    ("apgd", {"loss": "ce"}),
]


@pytest.mark.parametrize("attack, settings", GRADIENT)
def test_attacks_work_on_classifier_and_detector_together(attack: str, settings: dict[str, Any]) -> None:
    verdict, (x, _) = judged(attack, **settings), plane()
    assert verdict.clean.all() and verdict.detects
    assert torch.equal(verdict.robust, is_robust(x)) and 0.2 < verdict.robust_accuracy < 0.9


def test_an_attack_that_ignores_the_detector_is_weaker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.equal(judged(loss="margin").robust, is_robust(plane()[0]))
    monkeypatch.setattr(queries, "joined", lambda logits, y: logits[:, :-1])  # the broken twin
    assert judged(loss="margin").robust_accuracy > is_robust(plane()[0]).float().mean() + 0.1


def test_a_rejection_is_right_on_an_attacked_image_only_for_a_detector() -> None:
    x, _ = plane()
    a, b = x.flatten(1).T
    reached = a + EPS >= 0.5
    naive = judged(adaptive=False, loss="margin", random_start=False)
    rejected = a + EPS - b / 2 > CORNER  # it moves the first pixel only, all the way
    assert torch.equal(naive.robust, ~reached | rejected) and (rejected & reached).any() and naive.clean_accuracy == 1
    abstaining = judged(model=Gate(Rejection.ABSTENTION), loss="margin")  # the broken twin: an error to be had
    assert not (abstaining.robust & reached).any() and not torch.equal(abstaining.robust, is_robust(x))


@pytest.mark.parametrize(
    "attack, settings",
    [
        ("square", {"steps": 300}),
        ("hopskipjump", {"budget": 1000}),
        ("fmn", {}),
        ("deepfool", {}),
        ("ddn", {"steps": 30}),
    ],
)
def test_no_other_kind_of_attack_takes_a_rejection_for_a_success(attack: str, settings: dict[str, Any]) -> None:
    x, y = plane()
    threat = "linf:0.12" if attack in ("square", "fmn", "hopskipjump") else "l2:0.25"
    verdict = rbl.evaluate(Gate(), x, y, attack, threat, **settings)
    broken = ~verdict.robust
    assert broken.any() and (Gate()(verdict.x_adv[broken]).argmax(1) == 1).all()
    if threat == "linf:0.12":
        assert not (broken & is_robust(x)).any()


def test_a_detector_that_rejects_everything_or_nothing() -> None:
    assert judged(model=Gate(shift=9.0), allow_chance=True).clean_accuracy == 0
    never, plain = judged(model=Gate(shift=-9.0)), judged(model=Reader())
    assert torch.equal(never.robust, plain.robust) and torch.equal(never.x_adv, plain.x_adv)
    assert never.detects and not plain.detects


class Dazzle(Corruption):
    """The first pixel is brighter."""

    levels = (0.1,) * 5

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        return x + torch.tensor([self.level, 0.0])


def test_a_corrupted_image_that_is_rejected_is_an_error() -> None:
    x, y = plane()
    verdict = rbl.evaluate(Gate(), x, y, Dazzle(), "none")
    a, b = verdict.x_adv.flatten(1).T
    assert torch.equal(verdict.robust, (a < 0.5) & (a - b / 2 < CORNER)) and 0 < verdict.robust_accuracy < 1
    assert verdict.robust_accuracy < (a < 0.5).float().mean()


def test_a_random_rejection_does_not_rescue_an_image_that_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = plane()
    model = Shaky()

    def gap() -> float:
        verdict = rbl.evaluate(model, x, y, "pgd", "linf:0.01", steps=2, eot=20, draws=40, loss="margin")
        assert verdict.clean_accuracy == pytest.approx(0.7, abs=0.05)
        return verdict.robust_accuracy - verdict.clean_accuracy

    assert abs(gap()) < 0.05
    monkeypatch.setattr(search.Search, "__call__", search.Search._both)  # the broken twin
    assert gap() > 0.2


@dataclass(frozen=True)
class Asking(Attack):
    """Looks at what it is shown."""

    access: ClassVar[Access] = Access.SCORES

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        oracle.note("classes", torch.full_like(oracle._ledger.score, oracle.logits(x).shape[1]))
        oracle.note("goal", y.float())
        return x


def test_no_target_is_ever_the_rejection() -> None:
    for kind in (Rejection.DETECTION, Rejection.ABSTENTION):
        for targets in ("random", "least_likely"):
            verdict = judged(Asking(), Gate(kind, shift=-9.0), targets=targets)  # type: ignore[arg-type]
            assert (verdict.notes["goal"] < 3).all() and (verdict.notes["classes"] == 4).all()
    assert (judged(Asking()).notes["classes"] == 3).all()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"0 \.\. 2"):
        judged(targets=torch.full((len(plane()[0]),), 3))


def test_a_targeted_attack_must_beat_the_rejection_too() -> None:
    x, y = plane()
    verdict = judged(targets=torch.ones_like(y), loss="margin")
    assert torch.equal(verdict.robust, is_robust(x))


def test_labels_never_name_the_rejection() -> None:
    x, y = plane()
    oracle = Oracle(Gate(shift=9.0), x, y, ThreatModel.parse("linf:0.1"), Access.SCORES, Draws(0, y))
    assert (oracle.labels(x) == y).all()
    population = torch.stack([x, 1 - x], 1)
    assert oracle.logits(population).shape == (len(x), 2, 3)
    assert oracle.as_module()(x).shape == (len(x), 3) and oracle.classes == 3
    assert oracle.as_module()(population.flatten(0, 1)).shape == (2 * len(x), 3)


def test_chains_carry_the_mark_and_leave_all_of_it_out() -> None:
    draws = Draws(0, torch.arange(1))
    gate = Gate()
    chains: list[nn.Module] = [
        JPEG().build(gate, NoTraining(), draws),
        MultiJPEG(mode="vote").build(gate, NoTraining(), draws),
        UndeclaredRandomModel(gate),
    ]
    assert all(rejection(model) is Rejection.DETECTION for model in chains)
    assert undefended(chains[0]) is gate.net and undefended(chains[1]) is gate.net
    assert rejection(Deployed(Reader())) is Rejection.NONE and rejection(Reader()) is Rejection.NONE


def test_figures_of_a_detector() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, caught = (torch.randn(n, generator=generator).round(decimals=1) + shift for n, shift in ((200, 0), (90, 1)))
    wins = (caught[:, None] > clean).double() + (caught[:, None] == clean).double() / 2
    area = roc_auc(clean.numpy(), caught.numpy())
    assert area == pytest.approx(wins.mean().item()) and 0.6 < area < 0.9
    assert roc_auc(clean.numpy(), torch.full((3,), torch.nan).numpy()) == 0.0

    naive = judged(adaptive=False, loss="margin", random_start=False)
    fooled = naive.x_adv.flatten(1)[:, 0] > 0.5
    figures = detection(naive)
    assert figures["adversarial"] == int(fooled.sum()) > 0 and figures["false_positive_rate"] == 0.0
    assert figures["detection_rate"] == pytest.approx(naive.robust[fooled].float().mean().item(), abs=1e-5)
    broken = detection(judged(loss="margin"))
    assert broken["detection_rate"] < figures["detection_rate"] and broken["roc_auc"] < figures["roc_auc"]
    still = detection(judged(Asking()))  # type: ignore[arg-type]
    assert still == {"adversarial": 0, "detection_rate": None, "roc_auc": None, "false_positive_rate": 0.0}
