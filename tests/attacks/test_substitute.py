"""The substitute attack: what it asks, what it learns, and what its images do to the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.substitute import Substitute, Trained, rising
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError, ThreatError
from robustbench_local.core.losses import ce
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model
from tests.helpers.small_networks import layer

SHAPE = (1, 4, 4)
LINF = ThreatModel.parse("linf:0.1")
SMALL: dict[str, Any] = dict(seeds=40, rounds=3, epochs=20, lr=1e-2)


class LabelsOnly(nn.Module):
    """A linear model of three classes whose answers have no gradient and say no more than the class."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = torch.randn(16, 3, generator=generator, dtype=torch.float64)
        self.asked: list[Tensor] = []

    def scores(self, x: Tensor) -> Tensor:
        return (x.flatten(1).double() - 0.5) @ self.weight

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad, "a gradient is asked of the target"
        self.asked.append(x.detach())
        return nn.functional.one_hot(self.scores(x).argmax(1), 3).to(x) * 4.0


def data(count: int, seed: int, first: int = 0, dtype: torch.dtype = torch.float32) -> Tensors:
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return Tensors(x, LabelsOnly().scores(x).argmax(1), first + torch.arange(count))


JUDGED, POOL = data(60, 1), data(80, 2, first=100)


def run(attack: Attack, judge: Judge | None = None, model: nn.Module | None = None, **changes: Any) -> Any:
    pool, judged = changes.get("pool", POOL), changes.get("judged", JUDGED)
    return (judge or Judge())(model or LabelsOnly(), judged, attack, changes.get("threat", LINF), attacker=pool)


def test_labels_alone_teach_a_substitute_that_transfers() -> None:
    verdict = run(Substitute(**SMALL))
    agreement, transfer = (verdict.notes[name].nanmean() for name in ("agreement", "transfer"))
    assert agreement > 0.6 and transfer > 0.6  # a third would be chance
    assert verdict.robust_accuracy < run(FGSMOnNoise(**SMALL)).robust_accuracy - 0.2
    scores = LabelsOnly().scores(JUDGED.x)
    gap = scores.gather(1, JUDGED.labels[:, None]) - scores
    weight = LabelsOnly().weight.T
    slope = (weight[JUDGED.labels][:, None] - weight[None]).abs().sum(2)
    distance = (gap / slope).scatter(1, JUDGED.labels[:, None], torch.inf).amin(1)  # L∞, of a linear model
    assert verdict.robust[distance > LINF.eps].all() and not verdict.robust.all()


@dataclass(frozen=True)
class FGSMOnNoise(Substitute):
    """A broken twin: it never learns what it bought."""

    def fit(self, net: nn.Module, adam: torch.optim.Optimizer, x: Tensor, y: Tensor, draws: Draws) -> None:
        net.eval()


@dataclass(frozen=True)
class Backwards(Substitute):
    """A broken twin: it learns, and then moves the wrong way."""

    @property
    def inner(self) -> Attack:
        @dataclass(frozen=True)
        class Down(FGSM):
            def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
                return (2 * x - super().__call__(oracle, x, y, threat, draws)).clamp(0, 1)

        return Down()


@pytest.mark.parametrize("twin", [FGSMOnNoise, Backwards])
def test_broken_twins_are_caught(twin: type[Substitute]) -> None:
    assert run(twin(**SMALL)).robust_accuracy > run(Substitute(**SMALL)).robust_accuracy + 0.2


def test_more_than_labels_is_refused() -> None:
    assert Substitute.access is Trained.access is Access.LABELS

    @dataclass(frozen=True)
    class Peeks(Substitute):
        how: str = "logits"

        def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
            if self.how == "grad":
                oracle.grad(x, y, ce)
            elif self.how == "as_module":
                oracle.as_module()(x)
            else:
                getattr(oracle, self.how)(x)
            return self

    for how in ("logits", "grad", "jacobian", "as_module"):
        with pytest.raises(AccessError, match="granted LABELS"):
            run(Peeks(how=how, **SMALL))


def test_the_children_are_where_the_paper_puts_them() -> None:
    """Of a linear substitute: every pixel moves by step_size along the sign of the label's weights, then back."""

    @dataclass(frozen=True)
    class Linear(Substitute):
        def build(self, x: Tensor, classes: int, draws: Draws) -> nn.Module:
            net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
            net[1].weight.data = LabelsOnly().weight.T.to(x)
            return net

        def fit(self, net: nn.Module, adam: torch.optim.Optimizer, x: Tensor, y: Tensor, draws: Draws) -> None:
            net.eval()

    model = LabelsOnly()
    run(Linear(**(SMALL | dict(rounds=4, flip=2, step_size=0.01))), model=model)
    sizes, counts = [len(x) for x in model.asked], [40, 40, 80, 160]
    start = next(place for place in range(len(sizes)) if sizes[place : place + 4] == counts)
    known = model.asked[start]
    signs = LabelsOnly().weight.T.sign().float()
    for turn, step in enumerate((0.01, 0.01, -0.01)):
        new = model.asked[start + turn + 1].view(40, -1, *SHAPE)
        parents = known.view(40, -1, *SHAPE)
        moved = new[:, None] - parents[:, :, None]  # every child against every parent of its seed
        label = LabelsOnly().scores(known).argmax(1).view(40, -1)
        wanted = (parents + step * signs[label].view(40, -1, *SHAPE)).clamp(0, 1)
        near = (new[:, None] - wanted[:, :, None]).abs().flatten(3).amax(3) < 1e-6
        assert moved.shape[1] == new.shape[1] and near.any(1).all() and near.any(2).all()
        known = torch.cat([parents, new], 1).flatten(0, 1)


def test_rising_is_the_logits_gradient() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, k = torch.rand(700, *SHAPE), torch.arange(700) % 3
    weight = layer(net, 1).weight.detach()[k].view(700, *SHAPE)
    assert torch.allclose(rising(net, x, k), weight) and not torch.allclose(rising(net, x, (k + 1) % 3), weight)


@pytest.mark.parametrize(
    ("changes", "bought"),
    [
        ({}, 40 * 4),
        ({"rounds": 1}, 40),
        ({"rounds": 5}, 40 * 16),
        ({"rounds": 5, "sigma": 2, "kappa": 80}, 40 * (4 + 2 + 2)),
        ({"rounds": 5, "sigma": 0, "kappa": 1}, 40 * 5),
        ({"rounds": 5, "queries": 260}, 40 * 6),
        ({"rounds": 5, "queries": 40}, 40),
    ],
)
def test_what_is_bought(changes: dict[str, int], bought: int) -> None:
    model = LabelsOnly()
    attack = Substitute(**(SMALL | {"epochs": 1} | changes))
    verdict = run(attack, model=model)
    assert (verdict.prepared_forwards, verdict.prepared_backwards) == (bought, 0) == attack.prepare_cost(3)
    assert attack.cost(3) == (2, 0) and (verdict.forwards == 2).all() and not verdict.backwards.any()


def test_a_budget_of_the_judge_freezes_seeds_and_it_learns_from_what_it_has() -> None:
    verdict = run(Substitute(**(SMALL | {"rounds": 4})), Judge(budget=3))
    assert verdict.prepared_forwards == 40 * 2  # the third round would ask twice of each seed
    assert verdict.notes["agreement"].nanmean() > 0.6
    broke = run(Substitute(**SMALL), Judge(budget=1))
    assert not broke.forwards.any() and broke.notes["agreement"].isnan().all()


@pytest.mark.parametrize("white_box", ["fgsm", {"pgd": {"steps": 5, "restarts": 2}}])
def test_in_float64_batches_and_order_change_nothing(white_box: Any) -> None:
    judged, pool = data(30, 1, dtype=torch.float64), data(80, 2, first=100, dtype=torch.float64)
    before = judged.x.clone()
    attack = Substitute(white_box=white_box, **SMALL)
    whole = run(attack, Judge(precision="float64"), judged=judged, pool=pool)
    assert torch.equal(judged.x, before)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    shuffled = Tensors(judged.x[order], judged.labels[order], judged.ids[order])
    for size, rows, images in ((1, torch.arange(30), judged), (7, order, shuffled)):
        part = run(attack, Judge(precision="float64", batch_size=size), judged=images, pool=pool)
        assert torch.equal(part.robust, whole.robust[rows])
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)
        assert torch.equal(part.notes["agreement"], whole.notes["agreement"][rows])
    assert run(attack, Judge(precision="float64", seed=1), judged=judged, pool=pool).x_adv.ne(whole.x_adv).any()


@pytest.mark.parametrize("threat", ["linf:0.3", "l2:1", "l1:3", "linf:0"])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_stays_in_ball_and_box(threat: str, channels: int) -> None:
    ball = ThreatModel.parse(threat)
    x = torch.rand(12, channels, 4, 4, generator=torch.Generator().manual_seed(0)).mul(2).sub(0.5).clamp(0, 1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 3)).eval()
    y = net(x).argmax(1)
    attack = Substitute(**(SMALL | {"seeds": 5, "rounds": 2, "epochs": 1}))
    own = torch.rand(5, channels, 4, 4), torch.arange(5) % 3
    verdict = evaluate(net, x, y, attack, ball, attacker=own)
    assert ball.contains(verdict.x_adv, x).all() and verdict.flags == ()


def test_towards_a_target() -> None:
    # flags: a note of transfer then says that the target class was reached
    away = (JUDGED.labels + 1) % 3
    attack = Substitute(white_box={"pgd": {"steps": 10}}, **SMALL)
    verdict = run(attack, Judge(targets=away), threat=ThreatModel.parse("linf:0.3"))
    reached = LabelsOnly().scores(verdict.x_adv).argmax(1) == away
    assert torch.equal(~reached, verdict.robust) and reached.double().mean() > 0.5
    noted = ~verdict.notes["transfer"].isnan()
    assert torch.equal(verdict.notes["transfer"][noted] == 1, reached[noted])


def test_what_makes_no_sense_is_refused() -> None:
    for settings, said in (
        ({"substitute": "resnet"}, "unknown substitute"),
        ({"white_box": {"fgsm": {"los": "ce"}}}, "did you mean"),
        ({"white_box": "substitute"}, "learns from images itself"),
        ({"queries": 10}, "150 seeds"),
        ({"lr": 0.0}, "lr is 0"),
        ({"epochs": 0}, "epochs is 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            Substitute(**settings)
    with pytest.raises(ConfigError, match=r"substitute madry_cnn cannot read images of \(1, 4, 4\)"):
        run(Substitute(substitute="madry_cnn", **SMALL))
    with pytest.raises(ThreatError, match="does not know the norm l0"):
        run(Substitute(**SMALL), threat=ThreatModel.parse("l0:1"))
    assert Substitute(white_box={"pgd": {"steps": 3}}).inner == PGD(steps=3)
    named = Substitute(white_box="pgd").sources()["white_box"]
    assert '"steps": 40' in named and named != Substitute(white_box={"pgd": {"steps": 3}}).sources()["white_box"]


@pytest.mark.slow
def test_as_published_on_digits(record_property: Any) -> None:
    """CleverHans's settings within linf 0.3: an undefended network keeps between 50 and 85 points there, unstably."""
    x, y = load_data("mnist", n=150, source="bundled")
    own = load_data("mnist", split="train", source="bundled")
    verdict = evaluate(load_model("zoo:mnist/none"), x, y, "substitute", "linf:0.3", attacker=own)
    figures = {name: values.nanmean().item() for name, values in verdict.notes.items()}
    record_property("robust accuracy, notes", (verdict.robust_accuracy, figures))
    assert verdict.prepared_forwards == 4800
    assert figures["agreement"] > 0.6 and figures["transfer"] > 0.35 and verdict.robust_accuracy < 0.7
