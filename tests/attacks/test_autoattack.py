"""Suites: each member on what is still robust; and AutoAttack's published strength, number by number."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.apgd import APGD
from robustbench_local.attacks.autoattack import AutoAttack
from robustbench_local.attacks.fab import FAB
from robustbench_local.attacks.noise import Noise
from robustbench_local.attacks.square import Square
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.suite import Suite
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model
from tests.helpers.linear import linear
from tests.helpers.small_networks import COUNT, LINF, Jittered, chosen, images, network

NORMS = (Norm.LINF, Norm.L2, Norm.L1)


def apgd(loss: str, restarts: int = 1, targets: int = 0, larger_eps: bool = False) -> dict[str, Any]:
    return dict(steps=100, restarts=restarts, loss=loss, targets=targets, rho=0.75, larger_eps=larger_eps)


def fab(restarts: int = 1, targets: int = 0) -> dict[str, Any]:
    return dict(steps=100, restarts=restarts, targets=targets, alpha_max=0.1, eta=1.05, beta=0.9)


SQUARE = dict(steps=5000, restarts=1, p=0.8, stretch=False, lookahead=4, loss="margin", targeted_loss="ce")
STANDARD = [
    ("apgd-ce", APGD, apgd("ce")),
    ("apgd-t", APGD, apgd("dlr", targets=9)),
    ("fab-t", FAB, fab(targets=9)),
    ("square", Square, SQUARE),
]
STANDARD_L1 = [
    ("apgd-ce", APGD, apgd("ce", restarts=5, larger_eps=True)),
    ("apgd-t", APGD, apgd("dlr", targets=5, larger_eps=True)),
    *STANDARD[2:],
]
PLUS = [
    ("apgd-ce", APGD, apgd("ce", restarts=5)),
    ("apgd-dlr", APGD, apgd("dlr", restarts=5)),
    ("fab", FAB, fab(5)),
    ("square", Square, SQUARE),
    ("apgd-t", APGD, apgd("dlr", targets=9)),
    ("fab-t", FAB, fab(targets=9)),
]
RAND = [("apgd-ce", APGD, apgd("ce")), ("apgd-dlr", APGD, apgd("dlr"))]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("variant", ["standard", "plus", "rand"])
def test_a_published_name_has_the_published_strength(variant: str, norm: Norm) -> None:
    standard = STANDARD_L1 if norm is Norm.L1 else STANDARD
    expected: Any = {"standard": standard, "plus": PLUS, "rand": RAND}[variant]
    members = AutoAttack(variant=variant).members(norm)  # type: ignore[arg-type]
    assert list(members) == [name for name, _, _ in expected]
    for name, kind, settings in expected:
        assert type(members[name]) is kind
        assert asdict(members[name]) == settings, name
    assert Judge().eot == 20


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("variant", ["standard", "plus", "rand"])
def test_the_numbers_are_those_of_the_authors_package(variant: str, norm: Norm) -> None:
    package = pytest.importorskip("pyautoattack")
    members = AutoAttack(variant=variant).members(norm)  # type: ignore[arg-type]
    theirs = package.AutoAttack(nn.Identity(), norm=norm.capitalize(), eps=0.1, version=variant)
    assert theirs.attacks_to_run == list(members)
    for name, ours in members.items():
        if name == "square":
            assert isinstance(ours, Square)
            peer = theirs.square
            assert (ours.steps, ours.p, ours.restarts) == (peer.n_queries, peer.p_init, peer.n_restarts)
            assert [ours.share(i) for i in range(5000)] == [peer.p_selection(i) for i in range(5000)]
            continue
        targeted = name.endswith("-t")
        part = theirs.fab if isinstance(ours, FAB) else theirs.apgd_targeted if targeted else theirs.apgd
        assert isinstance(ours, APGD | FAB) and ours.steps == part.n_iter
        assert ours.targets == (part.n_target_classes if targeted else 0)
        assert ours.restarts == (1 if name == "fab-t" else part.n_restarts)  # theirs sets it as fab-t begins
        if isinstance(ours, FAB):
            assert (ours.alpha_max, ours.eta, ours.beta) == (part.alpha_max, part.eta, part.beta)
        else:
            assert (ours.rho, ours.larger_eps) == (part.thr_decr, part.use_largereps)
            assert variant != "rand" or part.eot_iter == Judge().eot


@dataclass(frozen=True)
class Short(Suite):
    """AutoAttack standard with few steps."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset(NORMS)

    def members(self, norm: Norm) -> Mapping[str, Attack]:
        return {
            "apgd-ce": APGD(steps=3),
            "apgd-t": APGD(steps=3, loss="dlr", targets=2),
            "fab-t": FAB(steps=3, targets=2),
            "square": Square(steps=10),
        }


@pytest.mark.parametrize(
    ("threat", "random"), [("linf:0.02", False), ("l2:0.2", False), ("l1:1.2", False), ("linf:0.02", True)]
)
def test_in_float64_batch_order_and_company_change_nothing(threat: str, random: bool) -> None:
    net = network()
    data = images(net, torch.float64)
    before = data.x.clone()
    model: nn.Module = Jittered(net) if random else net

    def verdict(rows: Tensor, batch: int) -> Verdict:
        judge = Judge(seed=3, precision="float64", batch_size=batch, eot=2, draws=3)
        return judge(model, chosen(data, rows), Short(), ThreatModel.parse(threat))

    whole = verdict(torch.arange(COUNT), COUNT)
    assert 0 < whole.robust_accuracy < 0.8 and not whole.flags
    shuffled = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for rows, batch in ((torch.arange(5), 1), (shuffled, 11)):
        part = verdict(rows, batch)
        for name in ("robust", "forwards", "backwards"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-8)
    assert torch.equal(data.x, before)


def test_fast_says_what_float32_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is emulated here where it is not native, so that the path is tried on any machine."""
    net = network()
    data = images(net)
    full = Judge()(net, data, Short(), LINF)
    monkeypatch.setattr("robustbench_local.evaluation.search.has_bfloat16", lambda device: True)
    fast = Judge(precision="fast")(net, data, Short(), LINF)
    assert full.robust.any() and not (fast.robust & ~full.robust).any()
    assert abs(fast.robust_accuracy - full.robust_accuracy) <= 0.003
    robust = fast.robust & fast.clean
    assert (fast.backwards[robust] == 2 * full.backwards[robust]).all()  # once in bfloat16, once in float32


def test_the_cost_is_the_sum_of_the_members() -> None:
    net = network()
    data = images(net)
    verdict = evaluate(net, data.x, data.labels, Short(), "linf:1e-5")
    forwards, backwards = Short().cost(classes=4)
    spent = verdict.forwards[verdict.clean]
    assert verdict.robust[verdict.clean].all()
    assert forwards - 3 <= spent.min() and spent.max() <= forwards  # FAB's last images lie outside and are not asked
    assert set(verdict.backwards[verdict.clean].tolist()) == {backwards}


@dataclass(frozen=True)
class Bright(Attack):
    """Adds `by` to every pixel and asks; keeps what it was given."""

    access: ClassVar[Access] = Access.LABELS

    by: float = 0.0
    greedy: bool = False

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        SEEN.append((len(x), draws.uniform(1).sum().item()))
        if self.greedy:
            oracle.logits(x)
        return x + self.by


SEEN: list[tuple[int, float]] = []


def suite_of(*attacks: Attack) -> Suite:
    @dataclass(frozen=True)
    class Given(Suite):
        access: ClassVar[Access] = Access.GRADIENTS

        def members(self, norm: Norm) -> Mapping[str, Attack]:
            return {f"member {place}": attack for place, attack in enumerate(attacks)}

    return Given()


def test_members_see_only_what_still_stands() -> None:
    x = torch.full((5, 1, 2, 2), 0.48) - torch.arange(5).view(5, 1, 1, 1) * 0.02
    y = torch.zeros(5, dtype=torch.int64)

    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x.flatten(1).mean(1) - 0.5
            return torch.stack([-bright, bright], 1)

    SEEN.clear()
    verdict = evaluate(Step(), x, y, suite_of(Bright(0.03), Bright(0.03), Bright(0.2), Bright(0.07)), "linf:0.1")
    assert [count for count, _ in SEEN] == [5, 4, 4, 4]  # what lies outside the ball is nothing
    assert len({total for _, total in SEEN[1:]}) == 3  # every member has draws of its own
    assert verdict.robust.tolist() == [False, False, False, True, True] and not verdict.flags
    SEEN.clear()
    evaluate(Step(), x, y, suite_of(Bright(0.099), Bright(0.01)), "linf:0.1")
    assert [count for count, _ in SEEN] == [5, 1]
    SEEN.clear()
    evaluate(Step(), x[:3], y[:3], suite_of(Bright(0.09), Bright(0.01)), "linf:0.1")
    assert [count for count, _ in SEEN] == [3]  # nothing is robust: nobody else runs
    with pytest.raises(AccessError, match="granted LABELS"):
        evaluate(Step(), x, y, suite_of(Bright(0.01, greedy=True)), "linf:0.1")


def test_a_suite_leaves_no_more_robust_than_any_member() -> None:
    net = network()
    data = images(net)
    members = (APGD(steps=2), Noise(), Square(steps=10))
    together = evaluate(net, data.x, data.labels, suite_of(*members), LINF).robust
    for member in members:
        assert not (together & ~evaluate(net, data.x, data.labels, member, LINF).robust).sum() > 2


def test_of_a_random_model_all_members_run_and_the_best_image_wins() -> None:
    net = network()
    data = images(net)
    model = Jittered(net)
    SEEN.clear()
    judge = Judge(eot=4)
    weak = judge(model, data, suite_of(Bright(0.0)), LINF)
    both = judge(model, data, suite_of(Bright(0.0), APGD(steps=10), Bright(0.0)), LINF)
    assert [count for count, _ in SEEN] == [COUNT] * 3
    assert both.robust_accuracy < weak.robust_accuracy - 0.2  # the weak last member does not undo the strong one


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("variant", ["standard", "rand"])
def test_few_classes_are_enough(classes: int, variant: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, 48, generator=generator)
    model = linear(weight, -0.5 * weight.sum(1))
    x = 0.5 + 0.02 * torch.randn(20, 3, 4, 4, generator=generator)
    verdict = evaluate(model, x, model(x).argmax(1), AutoAttack(variant=variant), "linf:0.1")  # type: ignore[arg-type]
    assert not verdict.robust.any()


PARAMETERS = [  # luck: images that either package breaks by some seeds and not by others
    pytest.param("mnist", 100, "linf", 0.3, 0, marks=pytest.mark.slow),
    pytest.param("mnist", 30, "l2", 1.5, 0, marks=pytest.mark.slow),
    pytest.param("mnist", 30, "l1", 10.0, 1, marks=pytest.mark.slow),
    pytest.param("cifar10", 50, "linf", 8 / 255, 1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("data", "count", "norm", "eps", "luck"), PARAMETERS)
def test_it_leaves_no_more_robust_than_the_authors_package(
    data: str, count: int, norm: str, eps: float, luck: int, record_property: Callable[[str, object], None]
) -> None:
    package = pytest.importorskip("pyautoattack")
    logging.getLogger("auto-attack").disabled = True
    model = load_model(f"zoo:{data}/adversarial_training")
    x, y = load_data(data, n=count, source="bundled")
    with torch.random.fork_rng():
        theirs = package.AutoAttack(model, norm=norm.capitalize(), eps=eps, seed=0)
        _, labels = theirs.run_standard_evaluation(x, y)
    robust = (labels == y).double().mean().item()
    verdict = evaluate(model, x, y, AutoAttack(), f"{norm}:{eps}")
    record_property("robust after ours, after theirs", (verdict.robust_accuracy, robust))
    assert verdict.robust_accuracy <= robust + luck / count + 0.005
