"""MI-FGSM by hand, and what carries over from surrogates without one question to the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._comparisons import figures
from benchmarks.strength import behind
from robustbench_local.attacks import transfer
from robustbench_local.attacks.mim import MIM
from robustbench_local.attacks.transfer import Diversity, Transfer
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ModelError
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from robustbench_local.models.load import load_model

LINF = ThreatModel.parse("linf:0.05")
COUNT = 24


def network(seed: int, channels: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return (
            nn.Sequential(nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 4))
            .eval()
            .requires_grad_(False)
        )


def images(channels: int = 3, dtype: torch.dtype = torch.float32, seed: int = 3) -> Tensors:
    """Random images, many pixels of which are 0 or 1, as network(0) sees them."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(COUNT, channels, 8, 8, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1).to(dtype)
    return Tensors(x, network(0, channels).to(dtype)(x).argmax(1), 50 + torch.arange(COUNT))


@pytest.fixture()
def nets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Surrogates by name: net:0 is the target's twin, net:1 a stranger; grey:0 reads one channel."""

    def found(name: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
        kind, _, seed = name.partition(":")
        return network(int(seed), 1 if kind == "grey" else 3).to(device, dtype)

    monkeypatch.setattr(transfer, "surrogate", found)
    yield


class Blind(nn.Module):
    """A target that counts its questions and has no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.asked = net, 0

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        self.asked += len(x)
        answer: Tensor = self.net(x)
        return answer


# MI-FGSM


def test_momentum_by_hand() -> None:
    """Quadratic logits (0, x1^2 / 2 - x2): the gradient of the margin of class 0 is (x1, -1), of L1 norm |x1| + 1."""

    seen: list[Tensor] = []

    class Quadratic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            first, second = x.flatten(1).unbind(1)
            return torch.stack([torch.zeros_like(first), first**2 / 2 - second], 1)

    x, y = torch.tensor([0.5, 0.4]).view(1, 1, 1, 2), torch.tensor([0])
    attack = MIM(steps=2, step_size=0.02, momentum=0.5, loss="margin")
    verdict = evaluate(Quadratic(), x, y, attack, "l2:0.1")
    velocity = torch.tensor([0.5, -1.0]) / 1.5
    place = torch.tensor([0.5, 0.4]) + 0.02 * velocity / velocity.norm()
    velocity = 0.5 * velocity + torch.tensor([place[0], -1.0]) / (place[0] + 1)
    place = place + 0.02 * velocity / velocity.norm()
    assert torch.allclose(verdict.x_adv.flatten(), place, atol=1e-6)
    assert verdict.forwards.tolist() == verdict.backwards.tolist() == [2] and attack.cost(2) == (2, 2)

    ahead = MIM(steps=2, step_size=0.02, momentum=0.5, loss="margin", nesterov=True)
    seen.clear()
    evaluate(Quadratic(), x, y, ahead, "linf:0.1")
    looked = torch.tensor([0.52, 0.38]) + 0.02 * 0.5 * torch.tensor([0.5, -1.0]) / 0.75  # the mean of 0.5 and 1
    assert any(torch.allclose(asked[0].flatten(), looked, atol=1e-6) for asked in seen)
    with pytest.raises(ConfigError, match="method for linf"):
        evaluate(Quadratic(), x, y, ahead, "l2:0.1")


@dataclass(frozen=True)
class NoStep(MIM):
    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        super().step(state, oracle, x, y, threat, draws, i)
        return state


@dataclass(frozen=True)
class WrongSign(MIM):
    def smoothed(self, grad: Tensor) -> Tensor:
        return -grad


def breaks_exactly_the_near(attack: Attack) -> bool:
    """Of a linear model of two classes, far from the box, the L∞ distance is the margin over the L1 slope."""
    slope = torch.randn(16, generator=torch.Generator().manual_seed(0))
    distance = torch.cat([torch.linspace(0.02, 0.0498, 30), torch.linspace(0.0502, 0.09, 30)])
    flat = 0.5 + 0.01 * torch.randn(60, 16, generator=torch.Generator().manual_seed(1))
    flat += (-distance * slope.abs().sum() - (flat - 0.5) @ slope)[:, None] * slope / slope.square().sum()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    model[1].weight.data = torch.stack([torch.zeros(16), slope])
    model[1].bias.data = torch.stack([torch.zeros(()), -0.5 * slope.sum()])
    verdict = evaluate(model, flat.view(-1, 1, 4, 4), torch.zeros(60, dtype=torch.int64), attack, LINF)
    assert verdict.clean.all()
    return torch.equal(verdict.robust, distance > 0.05)


@pytest.mark.parametrize("nesterov", [False, True])
def test_mim_fells_what_is_near_and_nothing_else(nesterov: bool) -> None:
    assert breaks_exactly_the_near(MIM(nesterov=nesterov))


@pytest.mark.parametrize("twin", [NoStep, WrongSign])
def test_broken_twins_are_caught(twin: type[MIM]) -> None:
    assert not breaks_exactly_the_near(twin())


# transfer


@pytest.mark.usefixtures("nets")
def test_the_target_is_never_asked_and_a_twin_of_it_gives_it_away() -> None:
    data, target = images(), Blind(network(0))
    before = data.x.clone()
    attack = Transfer(surrogates="net:0")
    assert Transfer.access is Access.NONE and attack.cost(4) == (0, 0)
    verdict = Judge(budget=1)(target, data, attack, LINF)
    assert torch.equal(data.x, before)
    assert not verdict.forwards.any() and not verdict.backwards.any()
    asked = target.asked
    Judge(budget=1)(target, data, Transfer(surrogates="net:0", steps=40), LINF)
    assert target.asked == 2 * asked  # preflight and judging only
    assert torch.equal(verdict.notes["fools_surrogates"] == 1, ~verdict.robust)
    white = Judge(count="last")(network(0), data, MIM(), LINF)
    assert torch.allclose(verdict.x_adv, white.x_adv, atol=1e-6) and white.robust_accuracy < 0.9


@pytest.mark.usefixtures("nets")
def test_the_image_is_the_end_of_the_path_not_the_first_success() -> None:
    """On surrogates nobody retires: images on which the surrogate errs from the start are worked on like the others."""
    data = images()
    wrong = network(1)(data.x).argmax(1) != data.labels
    verdict = Judge()(network(0), data, Transfer(surrogates="net:1"), LINF)
    assert wrong.any() and (verdict.distance > 0.049).all()


@pytest.mark.usefixtures("nets")
def test_an_ensemble_is_the_mean_of_logits() -> None:
    data = images()

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([network(1), network(2)])

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.parts
            answer: Tensor = (first(x) + second(x)) / 2
            return answer

    both = Judge()(network(0), data, Transfer(surrogates=("net:1", "net:2")), LINF)
    mean = Judge(count="last")(Mean(), Tensors(data.x, Mean()(data.x).argmax(1), data.ids), MIM(), LINF)
    same = Mean()(data.x).argmax(1) == data.labels
    assert same.any() and torch.allclose(both.x_adv[same], mean.x_adv[same], atol=1e-6)


SWITCHES: list[dict[str, Any]] = [
    {},
    {"diversity": 0.7},
    {"translation": 5},
    {"nesterov": True},
    {"diversity": 1.0, "translation": 3, "nesterov": True, "loss": "margin", "surrogates": ("net:1", "net:2")},
]


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_in_float64_batches_and_order_change_nothing(switches: dict[str, Any]) -> None:
    data = images(dtype=torch.float64)
    settings: dict[str, Any] = {"surrogates": "net:1", "steps": 5} | switches
    attack = Transfer(**settings)
    whole = Judge(precision="float64")(network(0).double(), data, attack, LINF)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for size, rows in ((1, torch.arange(COUNT)), (7, order)):
        part = Judge(precision="float64", batch_size=size)(
            network(0).double(), Tensors(data.x[rows], data.labels[rows], data.ids[rows]), attack, LINF
        )
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)
        assert torch.equal(part.notes["fools_surrogates"], whole.notes["fools_surrogates"][rows])
    plain = Judge(precision="float64")(network(0).double(), data, Transfer(surrogates="net:1", steps=5), LINF)
    assert not switches or not torch.allclose(plain.x_adv, whole.x_adv)


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("threat", ["linf:0.3", "linf:0", "l2:1", "l1:4"])
@pytest.mark.parametrize("name", ["net:1", "grey:1"])
def test_it_stays_in_ball_and_box(threat: str, name: str) -> None:
    channels = 1 if name.startswith("grey") else 3
    data, ball = images(channels), ThreatModel.parse(threat)
    ahead = ball.norm is Norm.LINF
    attacks: list[Attack] = [
        MIM(nesterov=ahead),
        Transfer(surrogates=name, diversity=0.5, translation=3, nesterov=ahead),
    ]
    for attack in attacks:
        verdict = Judge()(network(0, channels), data, attack, ball)
        assert ball.contains(verdict.x_adv, data.x).all() and verdict.flags == ()


def test_the_kernel_is_a_gaussian() -> None:
    grad = torch.randn(2, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smooth = Transfer(surrogates="x", translation=7).smoothed(grad)
    expected = grad.numpy()
    for axis in (2, 3):
        expected = gaussian_filter1d(expected, 1.0, axis=axis, mode="constant", radius=3)
    assert torch.allclose(smooth, torch.from_numpy(expected))


def test_diversity_shrinks_and_pads() -> None:
    x = torch.rand(200, 2, 10, 10, generator=torch.Generator().manual_seed(0)) + 0.5  # no black but the padding
    draws = Draws(0, torch.arange(200))
    changed = Diversity(0.6, 0.5)(x, draws)
    same = (changed == x).flatten(1).all(1)
    assert 0.25 < same.double().mean() < 0.55
    assert torch.equal(Diversity(0.0, 0.5)(x, draws), x)
    assert torch.allclose(Diversity(1.0, 1.0)(x, draws), x, atol=1e-5)
    filled = (changed[~same] > 0).all(1)
    high, wide = (filled.any(axis).sum(1) for axis in (2, 1))
    assert torch.equal(high * wide, filled.flatten(1).sum(1))  # what is left of the image is one rectangle
    assert (high - wide).abs().max() <= 2 and high.min() in (5, 6, 7) and high.float().mean() > 6.5
    top = filled.any(2).float().argmax(1)
    assert top.min() == 0 and (top + high).max() == 10  # it lies anywhere
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(Diversity(1.0, 0.7)(leaf, draws).sum(), leaf)
    assert (slope > 0).all()  # no pixel is left without a gradient
    assert (changed[~same] <= x[~same].amax((1, 2, 3), keepdim=True)).all()


@pytest.mark.usefixtures("nets")
def test_diversity_draws_anew_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    forward = Diversity.forward

    def watched(self: Diversity, x: Tensor, draws: Draws | None = None) -> Tensor:
        changed = forward(self, x, draws)
        seen.append((changed == 0).all(1))
        return changed

    monkeypatch.setattr(Diversity, "forward", watched)
    Judge()(network(0), images(), Transfer(surrogates="net:1", steps=3, diversity=1.0, shrink=0.5), LINF)
    assert len(seen) >= 3 and not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    assert len(seen[0].flatten(1).unique(dim=0)) > COUNT / 2


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_towards_a_target(loss: str) -> None:
    data, ball = images(), ThreatModel.parse("linf:0.2")
    goal = (data.labels + 1) % 4
    for attack in (MIM(loss=loss), Transfer(surrogates="net:0", loss=loss)):
        verdict = Judge(targets=goal)(network(0), data, attack, ball)
        reached = network(0)(verdict.x_adv).argmax(1) == goal
        assert torch.equal(reached, ~verdict.robust) and reached.double().mean() > 0.5


def test_what_makes_no_sense_is_refused() -> None:
    for settings, said in (
        ({}, "surrogates is empty"),
        ({"surrogates": "a", "diversity": 1.5}, "diversity is 1.5"),
        ({"surrogates": "a", "translation": 4}, "translation is 4"),
        ({"surrogates": "a", "shrink": 0.0}, "shrink is 0"),
        ({"surrogates": "a", "momentum": -1.0}, "momentum is -1"),
        ({"surrogates": "a", "steps": 0}, "steps is 0"),
        ({"surrogates": "a", "step_size": 0.0}, "step_size is 0"),
        ({"surrogates": "a", "loss": "cee"}, "did you mean"),
    ):
        with pytest.raises(ConfigError, match=said):
            Transfer(**settings)
    data = images()
    with pytest.raises(ModelError, match="unknown model"):
        Judge()(network(0), data, Transfer(surrogates="nobody"), LINF)
    with pytest.raises(ConfigError, match=r"surrogate zoo:mnist/none cannot read images of \(3, 8, 8\)"):
        Judge()(network(0), data, Transfer(surrogates="zoo:mnist/none"), LINF)


def test_the_weights_of_surrogates_name_the_row() -> None:
    first, second = (Transfer(surrogates=f"zoo:mnist/{name}").sources() for name in ("none", "adversarial_training"))
    assert list(first) == ["zoo:mnist/none"] and len(first["zoo:mnist/none"]) == 64
    assert first["zoo:mnist/none"] != second["zoo:mnist/adversarial_training"]


def robust(model: nn.Module, images: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        right: Tensor = model(images).argmax(1) == y
        return right


def robust_accuracy(model: nn.Module, images: Tensor, y: Tensor) -> float:
    return robust(model, images, y).double().mean().item()


@pytest.mark.parametrize(
    "name", ["mnist/adversarial_training", pytest.param("cifar10/adversarial_training", marks=pytest.mark.slow)]
)
def test_mim_leaves_no_more_robust_than_peers(name: str, record_property: Callable[[str, object], None]) -> None:
    module = pytest.importorskip("torchattacks")
    data, eps = name.split("/")[0], 0.3 if name.startswith("mnist") else 8 / 255
    model = load_model(f"zoo:{name}").requires_grad_(False)
    x, y = load_data(data, n=100, source="bundled")
    with torch.random.fork_rng():
        theirs = robust_accuracy(model, module.MIFGSM(model, eps=eps, alpha=eps / 10, steps=10, decay=1.0)(x, y), y)
    ours = evaluate(model, x, y, "mim", f"linf:{eps}").robust_accuracy
    record_property("robust after ours, after theirs", (ours, theirs))
    assert ours <= theirs + 0.005 and ours < robust_accuracy(model, x, y) - 0.02


@pytest.mark.slow
def test_transfer_carries_over_at_least_as_well_as_peers(record_property: Callable[[str, object], None]) -> None:
    """From the undefended digits to a network of another shape; DI draws, so the mean of three runs and its luck."""
    module = pytest.importorskip("torchattacks")
    x, y = load_data("mnist", n=500, source="bundled")
    target, own, eps = stranger(), load_model("zoo:mnist/none").requires_grad_(False), 0.2
    clean = robust(target, x, y)
    peers: dict[str, tuple[dict[str, Any], Any, int]] = {
        "MI": ({}, module.MIFGSM(own, eps=eps, alpha=eps / 10, steps=10), 1),
        "DI": ({"diversity": 0.5}, module.DIFGSM(own, eps=eps, alpha=eps / 10, steps=10, decay=1.0), 3),
        "NI": ({"nesterov": True}, module.NIFGSM(own, eps=eps, alpha=eps / 10, steps=10), 1),
    }
    rows = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, (switches, theirs, runs) in peers.items():
            attack = Transfer(surrogates="zoo:mnist/none", **switches)
            mine = [evaluate(target, x, y, attack, f"linf:{eps}", seed=seed).robust for seed in range(runs)]
            rows[name] = figures(torch.stack(mine), torch.stack([robust(target, theirs(x, y), y) for _ in mine]))
    record_property("robust after ours, after theirs", {name: row["robust_accuracy"] for name, row in rows.items()})
    for row in rows.values():
        assert not behind(row) and row["robust_accuracy"][0] < 100 * clean.double().mean().item() - 5


@pytest.mark.slow
def test_smoothed_gradients_leave_no_more_robust_than_torchattacks(
    record_property: Callable[[str, object], None],
) -> None:
    """TI-FGSM, on the surrogate itself; torchattacks' smooths three channels, so in colour."""
    module = pytest.importorskip("torchattacks")
    x, y = load_data("cifar10", n=60, source="bundled")
    own, eps = load_model("zoo:cifar10/none").requires_grad_(False), 2 / 255
    settings: dict[str, Any] = dict(alpha=eps / 10, steps=10, decay=1.0, len_kernel=7, nsig=3, diversity_prob=0.0)
    theirs = robust_accuracy(own, module.TIFGSM(own, eps=eps, **settings)(x, y), y)
    ours = evaluate(own, x, y, "transfer", "linf:2/255", surrogates="zoo:cifar10/none", translation=7).robust_accuracy
    record_property("robust after ours, after theirs", (ours, theirs))
    assert ours <= theirs + 0.005 and ours < robust_accuracy(own, x, y) - 0.05


def stranger() -> nn.Module:
    x, y = load_data("mnist", split="train", source="bundled")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).repeat(8).split(100):
        adam.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        adam.step()
    return net.eval().requires_grad_(False)
