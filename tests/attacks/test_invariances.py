"""What must not matter to a verdict, and what a verdict must leave as it found it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.bim import BIM
from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.noise import Noise
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.sparse_l1 import SparseL1
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, IterativeAttack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import AccessError, ConfigError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.testing.random_state import moved, state
from tests.helpers.small_networks import COUNT, L2, LINF, MODELS, Jittered, chosen, images, network

ATTACKS: list[tuple[Attack, ThreatModel]] = [
    (Noise(), LINF),
    (FGSM(), LINF),
    (PGD(steps=4, restarts=2), LINF),
    (PGD(steps=5, loss="margin"), L2),
    (PGD(steps=2, loss="multi_targeted"), LINF),
    (PGD(steps=4), ThreatModel.parse("l1:1.5")),
    (BIM(steps=4), LINF),
    (SparseL1(steps=4, restarts=2), ThreatModel.parse("l1:1.5")),
]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("attack", "threat"), ATTACKS, ids=lambda value: str(value).replace(" ", ""))
def test_in_float64_batch_order_and_company_change_nothing(attack: Attack, threat: ThreatModel, kind: str) -> None:
    net = network()
    data = images(net, torch.float64)
    model = MODELS[kind](net)

    def verdict(rows: Tensor, batch: int) -> Verdict:
        judge = Judge(seed=3, precision="float64", batch_size=batch, eot=2, draws=3)
        return judge(model, chosen(data, rows), attack, threat)

    whole = verdict(torch.arange(COUNT), COUNT)
    assert isinstance(attack, Noise | FGSM) or 0.1 < whole.robust_accuracy < 0.8  # some broken, some robust
    shuffled = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for rows, batch in ((torch.arange(COUNT), 1), (torch.arange(COUNT), 7), (shuffled, 11), (shuffled[:9], 4)):
        part = verdict(rows, batch)
        assert torch.equal(part.ids, whole.ids[rows])
        for name in ("clean", "robust", "robust_8bit", "forwards", "backwards"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name
        if whole.bits is not None:
            assert part.bits is not None and torch.equal(part.bits, whole.bits[rows])
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)


def test_in_float32_verdicts_agree_but_for_near_ties(record_property: Callable[[str, object], None]) -> None:
    model = network()
    data = images(model)
    verdicts = [Judge(batch_size=size)(model, data, PGD(steps=10), LINF) for size in (1, 5, COUNT)]
    differ = torch.zeros(COUNT, dtype=torch.bool)
    tied = torch.zeros(COUNT, dtype=torch.bool)
    for verdict in verdicts:
        differ |= verdict.robust != verdicts[0].robust
        with torch.no_grad():
            tied |= losses.margin(model(verdict.x_adv), data.labels).abs() < 1e-3
    record_property("verdicts that depend on the batch size", int(differ.sum()))
    assert not (differ & ~tied).any()
    assert differ.double().mean() < 0.05


def test_the_images_are_left_alone() -> None:
    model = network()
    data = images(model)
    before = data.x.clone()

    @dataclass(frozen=True)
    class Vandal(Attack):
        def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
            return x.add_(0.01)

    for attack in (Noise(), FGSM(), PGD(steps=3), Vandal()):
        verdict = Judge()(model, data, attack, LINF)
        assert torch.equal(data.x, before)
    assert verdict.distance.max() > 0.009  # measured from the true image, not from what the vandal left


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("attack", [Noise(), FGSM(), PGD(), PGD(step_size=0.1), PGD(loss="multi_targeted")], ids=str)
def test_a_ball_of_size_zero_is_the_clean_image(attack: Attack, norm: str, kind: str) -> None:
    net = network()
    data = images(net)
    verdict = Judge(eot=2, draws=3)(MODELS[kind](net), data, attack, ThreatModel.parse(f"{norm}:0"))
    assert torch.equal(verdict.x_adv, data.x)
    assert not verdict.distance.any()
    if kind == "deterministic":
        assert torch.equal(verdict.robust, verdict.clean) and verdict.robust_accuracy == verdict.clean_accuracy


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_given_back_as_it_was(fails: bool) -> None:
    model = network()
    data = images(model)
    model.train()
    model[1].eval()
    model[5].bias.requires_grad_(False)
    for place, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, place) if place % 2 else None
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    @dataclass(frozen=True)
    class Failing(PGD):
        def step(self, *given: object) -> State:
            assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
            super().step(*given)  # type: ignore[arg-type]
            raise KeyError("in the middle of a step")

    if fails:
        with pytest.raises(KeyError, match="in the middle"):
            Judge()(model, data, Failing(), LINF)
    else:
        Judge()(model, data, PGD(steps=3), LINF)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True] * 5 + [False]
    for place, parameter in enumerate(model.parameters()):
        grad = parameter.grad
        assert grad is None if place % 2 == 0 else grad is not None and torch.equal(grad, torch.full_like(grad, place))
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", MODELS)
def test_the_seed_decides_and_nothing_global_moves(kind: str) -> None:
    net = network()
    data, model = images(net), MODELS[kind](net)
    before = state()
    first, second, other = (Judge(seed=seed, eot=2)(model, data, PGD(steps=1), LINF) for seed in (1, 1, 2))
    assert list(moved(before)) == []
    assert torch.equal(first.x_adv, second.x_adv) and torch.equal(first.robust, second.robust)
    tried = first.clean & other.clean
    assert tried.any() and not (first.x_adv == other.x_adv).flatten(1).all(1)[tried].any()


@pytest.mark.parametrize("targets", ["random", "least_likely", "given"])
@pytest.mark.parametrize("loss", ["ce", "margin", "probability_margin", "dlr"])
def test_targeted_attacks_are_judged_by_their_target(targets: str, loss: str) -> None:
    model = network()
    data = images(model)
    given = (data.labels + 2) % 4
    judge = Judge(targets=given if targets == "given" else targets)
    verdict = judge(model, data, PGD(steps=20, loss=loss), ThreatModel.parse("linf:0.1"))
    with torch.no_grad():
        clean, reached = model(data.x), model(verdict.x_adv).argmax(1)
    broken = verdict.clean & ~verdict.robust
    assert broken.sum() > 3
    assert (reached != data.labels)[broken].all()
    if targets == "given":
        assert torch.equal(broken, verdict.clean & (reached == given))
    if targets == "least_likely":
        assert torch.equal(reached[broken], clean.argmin(1)[broken])
    untargeted = Judge()(model, data, PGD(steps=20, loss=loss), ThreatModel.parse("linf:0.1"))
    assert untargeted.robust_accuracy < verdict.robust_accuracy


def test_targets_that_mean_nothing_are_refused() -> None:
    model = network()
    data = images(model)
    y = data.labels
    for targets, why in ((y, "other than the true one"), (y + 4, r"0 \.\. 3"), (y[:7], r"\(7,\) for 30 images")):
        with pytest.raises(ConfigError, match=why):
            Judge(targets=targets)(model, data, PGD(steps=2), LINF)
    with pytest.raises(ConfigError, match="multi_targeted is an untargeted attack"):
        Judge(targets="random")(model, data, PGD(steps=2, loss="multi_targeted"), LINF)


class Step(nn.Module):
    """Class 0 below the brightness of 0.5, class 1 above; linear."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) - 0.5
        return torch.stack([-bright, bright], 1)


class Usual(Step):
    """The same, with logits of a usual size."""

    def forward(self, x: Tensor) -> Tensor:
        return 16 * super().forward(x)


def dark(count: int = 4) -> Tensors:
    return Tensors(torch.full((count, 1, 2, 2), 0.45), torch.zeros(count, dtype=torch.int64), torch.arange(count))


@dataclass(frozen=True)
class Path(IterativeAttack):
    """Walks through given brightnesses, one list per round, asking about each place before it leaves it."""

    access: ClassVar[Access] = Access.SCORES

    places: tuple[tuple[float, ...], ...] = ()

    def rounds(self, oracle: Oracle) -> int:
        return len(self.places)

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x.clone(), "restart": torch.full_like(y, restart)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        oracle.logits(state["x_adv"])
        return state | {"x_adv": torch.full_like(x, self.places[int(state["restart"][0])][i])}


WIDE = ThreatModel.parse("linf:0.1")


@pytest.mark.parametrize(
    ("places", "every", "last"),
    [
        (((0.55, 0.46),), False, True),  # passed through on the way
        (((0.46, 0.55),), False, False),  # where the only round ends, which no query of the attack's has seen
        (((0.46, 0.55), (0.46, 0.44)), False, False),  # where the first of two rounds ends
        (((0.46, 0.44), (0.46, 0.55)), False, False),
        (((0.46, 0.44), (0.46, 0.44)), True, True),
        (((0.60, 0.46),), True, True),  # outside the ball
    ],
)
def test_which_iterates_count(places: tuple[tuple[float, ...], ...], every: bool, last: bool) -> None:
    attack = Path(steps=2, places=places)
    assert Judge()(Step(), dark(), attack, WIDE).robust.tolist() == [every] * 4
    assert Judge(count="last")(Step(), dark(), attack, WIDE).robust.tolist() == [last] * 4


def test_an_end_beats_a_near_tie_on_the_way() -> None:
    """0.500001 wins by less than kernels differ; the end wins clearly, and is what the judge must be shown."""
    verdict = Judge()(Usual(), dark(), Path(steps=2, places=((0.500001, 0.54),)), WIDE)
    assert not verdict.robust.any() and torch.allclose(verdict.x_adv, torch.tensor(0.54))


def test_more_counts_and_more_restarts_only_lower() -> None:
    model = network()
    data = images(model)
    last = Judge(count="last")(model, data, PGD(steps=2, step_size=0.06), LINF).robust
    every = Judge()(model, data, PGD(steps=2, step_size=0.06), LINF).robust
    assert not (every & ~last).any() and every.sum() < last.sum()
    once, often = (Judge()(model, data, PGD(steps=1, step_size=0.01, restarts=count), LINF).robust for count in (1, 9))
    assert not (often & ~once).any() and often.sum() < once.sum()


@dataclass(frozen=True)
class Stubborn(PGD):
    """PGD that does not notice when it walks in circles."""

    memoryless: ClassVar[bool] = False


@pytest.mark.parametrize("threat", ["linf:0.01", "l2:0.05", "l1:0.2"])
def test_circles_end_early_and_change_no_verdict(threat: str) -> None:
    model = network().double()
    data = images(model, torch.float64)
    judge, settings = Judge(precision="float64"), dict(steps=100, step_size=0.02, restarts=2)
    quick = judge(model, data, PGD(**settings), ThreatModel.parse(threat))  # type: ignore[arg-type]
    slow = judge(model, data, Stubborn(**settings), ThreatModel.parse(threat))  # type: ignore[arg-type]
    assert torch.equal(quick.robust, slow.robust) and quick.robust.any()
    if threat.startswith("linf"):
        assert quick.forwards.sum() < 0.5 * slow.forwards.sum()


def test_fast_finds_no_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16, emulated where it is not native, only searches first: verdicts are float32's, and so is the rest."""
    net = network()
    data, attack = images(net), PGD(steps=10)
    full = Judge()(net, data, attack, LINF)
    monkeypatch.setattr("robustbench_local.evaluation.search.has_bfloat16", lambda device: True)
    fast = Judge(precision="fast")(net, data, attack, LINF)
    with torch.no_grad():
        wrong = net(fast.x_adv).argmax(1) != data.labels
    assert torch.equal(fast.robust, ~wrong) and not (fast.robust & ~full.robust).any()
    assert fast.forwards[fast.robust & fast.clean].eq(20).all()  # what is robust was searched twice
    noisy = Jittered(net)
    for name, judge in (("float32", Judge(eot=2)), ("fast", Judge(eot=2, precision="fast"))):
        verdict = judge(noisy, data, attack, LINF)
        assert verdict.forwards.eq(22).all(), name  # a random model is searched once, in float32


def none_left() -> None:
    raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize(
    ("ask", "room", "halved"),
    [(none_left, 64, (75, 37)), (lambda: torch.empty(2**50), 64, (75, 37)), (none_left, 16, (32, 16))],
    ids=["device", "host", "too little for the checks before an attack"],
)
def test_memory_running_out_costs_nothing_but_time(
    ask: Callable[[], object], room: int, halved: tuple[int, int]
) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > room:
                ask()
            answer: Tensor = self.net(x)
            return answer

    class Lines(Progress):
        def __init__(self) -> None:
            self.said: list[str] = []

        def line(self, text: str) -> None:
            self.said.append(text)

    few = images(network())
    data = Tensors(few.x.repeat(5, 1, 1, 1), few.labels.repeat(5), torch.arange(5 * COUNT))
    lines = Lines()
    verdict = Judge()(Small(), data, PGD(steps=3), LINF, lines)
    assert lines.said == [f"out of memory: going on with batches of {size}" for size in halved]
    assert torch.equal(verdict.robust, Judge(batch_size=halved[1])(network(), data, PGD(steps=3), LINF).robust)
    with pytest.raises(torch.OutOfMemoryError):
        Judge()(network(), data, Hungry(), LINF)


@dataclass(frozen=True)
class Hungry(Attack):
    """Runs out of memory with a single image, too."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")


@dataclass(frozen=True)
class Alternating(IterativeAttack):
    """Bright, dark, bright, dark: each step depends on where it is only."""

    memoryless: ClassVar[bool] = True

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        return {"x_adv": torch.where(state["x_adv"] < 0.5, 0.55, 0.46)}


def test_where_only_the_last_counts_no_circle_ends_early() -> None:
    for steps, robust in ((3, False), (4, True), (5, False), (6, True)):
        verdict = Judge(count="last")(Step(), dark(), Alternating(steps=steps), WIDE)
        assert verdict.robust.tolist() == [robust] * 4


class Counted(nn.Module):
    """Counts the images it is asked for gradients; the judge asks for none."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.asked = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x) if torch.is_grad_enabled() else 0
        answer: Tensor = self.net(x)
        return answer


def test_the_meter_counts_what_was_asked() -> None:
    net = network()
    model = Counted(net)
    verdict = Judge(batch_size=10)(model, images(net), PGD(steps=9), LINF)
    assert model.asked == verdict.backwards.sum() == verdict.forwards.sum()
    assert verdict.forwards[~verdict.clean].eq(0).all()  # what errs already is not attacked
    assert verdict.forwards.max() == 9 and verdict.forwards[verdict.clean & ~verdict.robust].float().mean() < 9


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        (FGSM(), "linf:1e-5"),
        (BIM(), "l2:1e-5"),
        (PGD(steps=7, restarts=3, loss="multi_targeted"), "linf:1e-5"),
        (SparseL1(steps=3, restarts=2), "l1:0.02"),
        (Noise(), "l2:1e-5"),
    ],
)
def test_what_never_falls_costs_what_is_predicted(attack: Attack, threat: str) -> None:
    net = network()
    verdict = Judge()(net, images(net), attack, ThreatModel.parse(threat))
    asked = {(int(f), int(b)) for f, b in zip(verdict.forwards, verdict.backwards, strict=True)}
    assert verdict.robust.sum() > 5 and (0, 0) in asked  # what errs already is not attacked
    assert max(asked) == attack.cost(classes=4)  # and what settles costs less


@pytest.mark.parametrize("budget", [1, 2, 7, 8])
@pytest.mark.parametrize("kind", MODELS)
def test_budgets_are_hard(kind: str, budget: int) -> None:
    net = network()
    data = images(net)
    for loss in ("ce", "multi_targeted"):
        judge = Judge(budget=budget, eot=3, draws=2)
        verdict = judge(MODELS[kind](net), data, PGD(steps=4, restarts=2, loss=loss), ThreatModel.parse("linf:0.001"))
        assert verdict.forwards.max() <= budget
        left = budget - judge.checks
        spent = left if kind == "deterministic" else left - left % 3
        assert verdict.forwards.max() == spent


@dataclass(frozen=True)
class Spendthrift(Attack):
    """Asks twice about every second sample, then five times about all, with a loss that holds a tensor of them all."""

    access: ClassVar[Access] = Access.GRADIENTS

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        def loss(logits: Tensor, label: Tensor) -> Tensor:
            return losses.margin_to(logits, label, (y + 1) % 4)

        half = torch.arange(0, len(x), 2)
        oracle[half].labels(x[half, None].expand(-1, 2, -1, -1, -1))
        for restart in range(5):
            _, grad, _ = oracle.grad(x, y, loss)
            frozen = ~grad.flatten(1).any(1)
            expected = torch.full((len(x),), restart >= 3)
            expected[half] = restart >= 1
            assert torch.equal(frozen, expected)
        assert oracle.logits(x).isnan().all() and (oracle.labels(x) == -1).all()
        slopes, logits = oracle.jacobian(x)
        assert not slopes.any() and logits.isnan().all()
        assert oracle.done.all()
        return x


def test_samples_that_spent_their_budget_freeze() -> None:
    model = network()
    data = chosen(images(model), torch.tensor([1, 2, 3, 4, 5, 7, 8, 9]))
    verdict = Judge(budget=3)(model, data, Spendthrift(), LINF)
    assert verdict.forwards.tolist() == [3] * 8
    assert verdict.backwards.tolist() == [1, 3] * 4


@dataclass(frozen=True)
class Population(Attack):
    """Shows a bright image outside the ball beside a less bright one inside: only the second one wins."""

    access: ClassVar[Access] = Access.LABELS

    minimises: ClassVar[bool] = False

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        levels = torch.tensor([0.44, 0.9, 0.54, 0.52, 1.7]).view(1, 5, 1, 1, 1)
        labels = oracle.labels(torch.ones_like(x)[:, None] * levels)
        assert labels[0].tolist() == [0, 1, 1, 1, 1] and oracle.forwards.tolist() == [5] * len(x)
        return oracle.best(x)


@dataclass(frozen=True)
class Nearest(Population):
    minimises: ClassVar[bool] = True


def test_of_a_population_the_best_that_counts_is_remembered() -> None:
    verdict = Judge()(Step(), dark(), Population(), WIDE)
    assert not verdict.robust.any() and torch.allclose(verdict.x_adv, torch.tensor(0.54))
    nearest = Judge()(Step(), dark(), Nearest(), ThreatModel.parse("linf:0.01"))
    assert nearest.robust.all() and torch.allclose(nearest.distance, torch.tensor(0.07))


@pytest.mark.parametrize("granted", list(Access))
@pytest.mark.parametrize("asks", ["labels", "logits", "as_module", "grad", "jacobian"])
def test_an_attack_gets_what_it_declares_and_no_more(granted: Access, asks: str) -> None:
    needs = {"labels": Access.LABELS, "logits": Access.SCORES, "as_module": Access.SCORES}.get(asks, Access.GRADIENTS)

    @dataclass(frozen=True)
    class Greedy(Attack):
        access: ClassVar[Access] = granted

        def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
            if asks == "as_module":
                oracle.as_module()(x)
            elif asks == "grad":
                oracle.grad(x, y, losses.ce)
            else:
                getattr(oracle, asks)(x)
            return x

    model = network()
    if granted >= needs:
        assert Judge()(model, images(model), Greedy(), LINF).forwards.max() == 1
    else:
        with pytest.raises(AccessError, match=rf"granted {granted.name} .* needs {needs.name}"):
            Judge()(model, images(model), Greedy(), LINF)
