"""Other people's attacks under our contract: their settings checked, their queries metered, their images judged."""

from __future__ import annotations

import random
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.adapters._peer import Peer, Traits
from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.core.access import Access
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError, PluginError, ThreatError
from robustbench_local.core.metered import Metered, SpentError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from tests.helpers.linear import distances, two_classes
from tests.helpers.small_networks import Jittered, layer

for package in ("torchattacks", "foolbox", "art", "pyautoattack"):
    pytest.importorskip(package, reason=f"{package} is not installed: its adapter is left out")

LINF = ThreatModel.parse("linf:0.1")
FOLLOWERS: list[tuple[str, dict[str, Any]]] = [  # iterated linf attacks, with steps that suit eps 0.1
    ("torchattacks:PGD", {"alpha": "0.02", "steps": 20}),
    ("foolbox:LinfPGD", {"rel_stepsize": 0.2, "steps": 20}),
    ("art:ProjectedGradientDescentPyTorch", {"eps_step": 0.02, "max_iter": 20, "num_random_init": 1}),
    ("pyautoattack", {"version": "custom", "attacks": ["apgd-ce"]}),
]
BLACK_BOXES: list[tuple[str, dict[str, Any]]] = [
    ("torchattacks:Square", {"n_queries": 30}),
    ("foolbox:LinfRepeatedAdditiveUniformNoiseAttack", {"repeats": 10}),
    ("art:SquareAttack", {"max_iter": 10}),
]


def network() -> nn.Sequential:
    """A small random network, 4 classes, images of 3x8x8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()


def images(model: nn.Module, count: int = 12) -> Tensors:
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return Tensors(x, model(x).argmax(1), torch.arange(100, 100 + count))


@pytest.mark.parametrize(("name", "settings"), FOLLOWERS)
def test_on_a_linear_model_the_near_points_are_broken_and_no_others(name: str, settings: dict[str, Any]) -> None:
    model, x, y, distance = two_classes(LINF)
    verdict = evaluate(model, x, y, name, LINF, **settings)
    assert verdict.clean.all() and not verdict.flags
    assert torch.equal(verdict.robust, distance > LINF.eps)


@pytest.mark.parametrize("name", ["torchattacks:FGSM", "foolbox:FGSM", "art:FastGradientMethod"])
def test_one_step_is_our_step(name: str) -> None:
    model = network()
    data = images(model)
    ours, theirs = (Judge()(model, data, attack, LINF) for attack in (FGSM(), find_attack(name)))
    assert torch.allclose(ours.x_adv, theirs.x_adv, atol=1e-6) and torch.equal(ours.robust, theirs.robust)
    assert theirs.backwards.eq(1).all() and theirs.forwards.max() <= 2


@pytest.mark.parametrize(
    "name", ["foolbox:L2DeepFoolAttack", "torchattacks:DeepFool", "torchattacks:FAB", "art:DeepFool"]
)
def test_what_minimises_is_judged_by_its_distance(name: str) -> None:
    threat = ThreatModel.parse("l2:0.2")
    model, x, y, _ = two_classes(threat)
    attack = find_attack(name)
    assert attack.minimises
    verdict = evaluate(model, x[::5], y[::5], attack, threat)
    exact = distances(model, x[::5], y[::5], threat.norm)
    assert torch.allclose(verdict.distance.double(), exact, rtol=0.03)
    assert torch.equal(verdict.robust, verdict.distance > threat.eps)


class NoGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        raise AssertionError("a gradient was asked for")


class Opaque(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(NoGradients.apply(x))  # type: ignore[no-untyped-call]
        return answer


@pytest.mark.parametrize(("name", "settings"), BLACK_BOXES)
def test_black_boxes_need_no_gradients_and_no_company(name: str, settings: dict[str, Any]) -> None:
    net = network()
    data, attack = images(net), find_attack(name, settings)
    assert attack.access is Access.SCORES
    whole = Judge(seed=1)(Opaque(net), data, attack, LINF)
    assert not whole.backwards.any() and (whole.forwards[whole.robust] >= 10).all() and not whole.robust.all()
    rows = torch.tensor([7, 2, 9, 4])
    part = Judge(seed=1, batch_size=3)(net, Tensors(data.x[rows], data.labels[rows], data.ids[rows]), attack, LINF)
    for field in ("robust", "forwards", "x_adv"):
        assert torch.equal(getattr(part, field), getattr(whole, field)[rows]), field


@pytest.mark.parametrize(("name", "settings"), [*FOLLOWERS[:3], *BLACK_BOXES])
@pytest.mark.parametrize("eps", [0.0, 0.03, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
def test_never_outside_ball_and_box(name: str, settings: dict[str, Any], eps: float, channels: int) -> None:
    model = network()
    model[0] = nn.Conv2d(channels, 8, 3, stride=2)
    threat = ThreatModel.parse(f"linf:{eps}")
    if eps == 0 and name.startswith(("art", "foolbox:LinfRep")):
        pytest.skip("the package refuses an eps of 0")
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(4, channels, 8, 8, generator=generator).round()  # black and white touch both sides of the box
    verdict = evaluate(model.eval(), x, torch.zeros(4, dtype=torch.int64), name, threat, **settings)
    assert threat.contains(verdict.x_adv, x).all() and not verdict.flags


@pytest.mark.parametrize(("name", "settings"), [*FOLLOWERS[:2], BLACK_BOXES[0]])
def test_budgets_are_hard(name: str, settings: dict[str, Any]) -> None:
    model = network()
    verdict = Judge(budget=7)(model, images(model), find_attack(name, settings), LINF)
    assert 1 < verdict.forwards.max() <= 7


@pytest.mark.parametrize(("name", "settings"), [*FOLLOWERS, *BLACK_BOXES])
def test_nothing_global_moves_and_the_seed_decides(name: str, settings: dict[str, Any]) -> None:
    model = network()
    data = images(model, 4 if name == "pyautoattack" else 12)
    attack, small = find_attack(name, settings), ThreatModel.parse("linf:0.01")
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    copy = data.x.clone()
    first, second, other = (Judge(seed=seed)(model, data, attack, small).x_adv for seed in (1, 1, 2))
    assert torch.equal(before[0], torch.get_rng_state()) and before[2] == random.getstate()
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(data.x, copy)
    assert torch.equal(first, second)
    assert name.startswith("pyautoattack") or not torch.equal(first, other)


@pytest.mark.parametrize(("name", "settings"), FOLLOWERS)
def test_targets(name: str, settings: dict[str, Any]) -> None:
    model = network()
    data, attack, wide = images(model), find_attack(name, settings), ThreatModel.parse("linf:0.3")
    goal = (data.labels + 2) % 4
    if name == "pyautoattack":
        with pytest.raises(ConfigError, match="untargeted"):
            Judge(targets=goal)(model, data, attack, wide)
        return
    verdict = Judge(targets=goal)(model, data, attack, wide)
    with torch.no_grad():
        assert torch.equal(model(verdict.x_adv).argmax(1) == goal, ~verdict.robust)
    assert verdict.robust_accuracy < 0.5
    for untargeted in ("torchattacks:DeepFool", "art:DeepFool"):
        with pytest.raises(ConfigError, match="untargeted"):
            evaluate(model, data.x, data.labels, untargeted, "l2:0.3", targets=goal)


@pytest.mark.parametrize(("name", "settings"), [FOLLOWERS[0], BLACK_BOXES[0]])
def test_of_random_models_every_draw_is_counted(name: str, settings: dict[str, Any]) -> None:
    net = network()
    data, attack = images(net), find_attack(name, settings)
    once, twice = (Judge(eot=eot, draws=3)(Jittered(net), data, attack, LINF) for eot in (1, 2))
    assert twice.forwards.sum() > 1.5 * once.forwards.sum() and twice.forwards.remainder(2).eq(0).all()


# the meter under calls that are no whole batch


def oracle(model: nn.Module, data: Tensors, **settings: Any) -> Oracle:
    draws = Draws(0, data.ids)
    return Oracle(model, data.x, data.labels, LINF, Access.GRADIENTS, draws, **settings)


def meter_is_right() -> bool:
    model = network()
    data = images(model, 5)
    asked = oracle(model, data)
    module = asked.as_module()
    with torch.no_grad():
        logits = module(data.x[[4, 2, 4]] + 0.01)
    assert torch.allclose(logits, model(data.x[[4, 2, 4]] + 0.01), atol=1e-6)
    leaf = data.x[[2, 0]].requires_grad_()
    module(leaf).sum().backward()
    forwards, backwards = asked.forwards.tolist(), asked.backwards.tolist()
    return bool(forwards == [1, 0, 2, 0, 2] and backwards == [1, 0, 1, 0, 0] and leaf.grad is not None)


def test_parts_of_a_batch_are_counted_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert meter_is_right()
    with monkeypatch.context() as patch:
        patch.setattr(Metered, "owners", lambda self, x: torch.arange(len(x)))
        assert not meter_is_right()
    for_one = Oracle._ask_any

    def for_everyone(self: Oracle, x: Tensor, owner: Tensor) -> Tensor:
        self._ledger.forwards += 1
        return for_one(self, x, owner)

    monkeypatch.setattr(Oracle, "_ask_any", for_everyone)
    assert not meter_is_right()


def test_parts_of_a_batch_are_remembered_where_they_belong() -> None:
    model = network()
    data = images(model, 5)
    broken = Judge()(model, data, find_attack("torchattacks:PGD", {"alpha": 0.02}), ThreatModel.parse("linf:0.09"))
    rows = (~broken.robust).nonzero()[:, 0]
    assert len(rows) > 1
    asked = oracle(model, data)
    asked.as_module()(torch.cat([data.x[rows[:1]], broken.x_adv[rows[:1]], data.x[rows[:1]]]))
    assert asked.remembered.nonzero()[:, 0].tolist() == [int(rows[0])]
    assert torch.equal(asked.best(data.x)[rows[0]], broken.x_adv[rows[0]])


def test_a_lone_sample_owns_whatever_is_asked() -> None:
    model = network()
    data = images(model, 5)
    asked = oracle(model, data)
    asked[torch.tensor([3])].as_module()(data.x[:4])
    assert asked.forwards.tolist() == [0, 0, 0, 4, 0]


def test_a_call_that_cannot_be_paid_for_ends_it() -> None:
    model = network()
    data = images(model, 5)
    asked = oracle(model, data, budget=3)
    module = asked.as_module()
    module(data.x[[1, 1]])
    with pytest.raises(SpentError, match="budget of 3"):
        module(data.x[[1, 1]])
    module(data.x[[2, 2, 2]])
    assert asked.forwards.tolist() == [0, 2, 3, 0, 0] and issubclass(SpentError, AccessError)


# names and settings


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("torchattacks:PDG", {}, ['no attack "PDG"', 'did you mean "PGD"?', "torchattacks:NAME"]),
        ("foolbox", {}, ["foolbox:NAME", "LinfPGD"]),
        ("art:ProjectedGradientDecent", {}, ['did you mean "ProjectedGradientDescent']),
        ("torchattacks:PGD", {"stpes": 3}, ['no "stpes"', 'did you mean "steps"?', "alpha"]),
        ("foolbox:LinfPGD", {"step": 3}, ['did you mean "steps"?']),
        ("art:HopSkipJump", {"max_iters": 3}, ['did you mean "max_iter"?']),
        ("torchattacks:PGD", {"eps": 0.3}, ["eps", "not to be set", "the threat's"]),
        ("torchattacks:PGD", {"steps": "many"}, ["steps", "'many'", "a whole number"]),
        ("torchattacks:PGD", {"random_start": 1}, ["random_start", "true or false"]),
        ("torchattacks:LGV", {}, ["trainloader"]),
        ("pyautoattack", {"versoin": "plus"}, ['did you mean "version"?']),
        ("pyautoattack:apgd", {}, ["one attack", "apgd"]),
        ("pgd:x", {}, ['"pgd" is one attack']),
        ("foolbx:LinfPGD", {}, ['did you mean "foolbox"?']),
    ],
)
def test_a_mistake_is_named(name: str, settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises((ConfigError, PluginError)) as caught:
        find_attack(name, settings)
    for word in words:
        assert word in str(caught.value)


def test_the_norm_is_checked() -> None:
    model = network()
    data = images(model)
    with pytest.raises(ThreatError, match="does not know the norm l2"):
        evaluate(model, data.x, data.labels, "foolbox:LinfPGD", "l2:1")


@pytest.mark.parametrize(
    ("name", "package", "line"),
    [
        ("torchattacks:PGD", "torchattacks", "pip install torchattacks"),
        ("foolbox:LinfPGD", "foolbox", "pip install foolbox"),
        ("art:DeepFool", "art", "pip install adversarial-robustness-toolbox"),
        ("pyautoattack", "pyautoattack", "pip install pyautoattack"),
    ],
)
def test_a_missing_package_says_how_to_install_it(
    name: str, package: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [*sys.modules]:
        if module == package or module.startswith(f"{package}."):
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PluginError, match=line) as caught:
        find_attack(name)
    assert "\n" not in str(caught.value)
    assert not {row.name: row for row in listing(ATTACKS)}[name.partition(":")[0]].error  # listed all the same


def test_adapters_are_listed_with_a_line_each() -> None:
    rows = {row.name: row for row in listing(ATTACKS)}
    for name in ("torchattacks:", "foolbox:", "art:"):
        row = rows[name[:-1]]
        assert name in row.summary and row.paper and not row.error and not row.settings
    assert "AutoAttack" in rows["pyautoattack"].summary


def test_settings_and_release_are_part_of_the_row() -> None:
    attack = find_attack("torchattacks:PGD", {"alpha": "2/255", "steps": 7})
    assert attack.settings == {"alpha": pytest.approx(2 / 255), "steps": 7}  # type: ignore[attr-defined]
    assert attack.name == "PGD" and attack.sources()["torchattacks"][0].isdigit()  # type: ignore[attr-defined]


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:1", "l1:3"])
@pytest.mark.parametrize("parts", [["apgd-ce"], ["fab-t"], ["square"]])
def test_pyautoattack_is_handed_colour_images_that_it_can_view(threat: str, parts: list[str]) -> None:
    model = network()
    data = images(model, 3)
    verdict = evaluate(model, data.x, data.labels, "pyautoattack", threat, version="custom", attacks=parts)
    assert ThreatModel.parse(threat).contains(verdict.x_adv, data.x).all() and verdict.clean.all()


class Views(Peer):
    """What it is handed, and every gradient of it, must be contiguous."""

    package: ClassVar[str] = "torch"
    distribution: ClassVar[str] = "torch"

    def kind(self) -> Any:
        return lambda: None

    def traits(self, kind: Any) -> Traits:
        return Traits(frozenset(Norm))

    def craft(self, model: nn.Module, x: Tensor, *given: Any) -> Tensor:
        leaf = x.requires_grad_()
        (grad,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
        assert x.is_contiguous() and grad.is_contiguous()
        return x.detach()


def test_images_and_gradients_are_contiguous() -> None:
    model: nn.Module = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = images(model)
    assert evaluate(model, data.x, data.labels, Views(), LINF).backwards.eq(1).all()


def test_what_another_package_dies_of_is_said() -> None:
    model = network()
    data = images(model, 3)
    with pytest.raises(ConfigError, match="foolbox:LinfFastGradientAttack is an untargeted attack"):
        evaluate(model, data.x, data.labels, "foolbox:LinfFastGradientAttack", LINF, targets="random")
    grey = torch.full((2, 3, 8, 8), 0.5)
    always = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    nn.init.zeros_(layer(always, 1).weight)
    layer(always, 1).bias.data = torch.tensor([1.0, 0.0, 0.0])
    with pytest.raises(PluginError, match=r"foolbox HopSkipJumpAttack died of ValueError: .*2 images of \(3, 8, 8\)"):
        evaluate(always, grey, torch.zeros(2, dtype=torch.int64), "foolbox:HopSkipJumpAttack", "l2:1", steps=1)
